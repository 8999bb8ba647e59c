"""Do given pictures read like drawn ones?: ``python bench/validity/given_pictures.py FOLDER``.

The organism draws pictures; they are taken as given ones, encoded, put under noises of their own, and read at the same
blocks and steps. For each cell, over samples, of the mean vector of a sample's tokens, in units of the spread between
drawn samples: how far the mean of given ones is from that of drawn ones (root mean square over channels), beside how
far two random halves of the drawn ones are; the ratio of variances; and the correlation of a picture's vector with its
own when it was drawn (median over channels). About six minutes of a core.
"""

import argparse
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from handscope.extract.address import Plan
from handscope.extract.extract import extract
from handscope.extract.generate import generate
from handscope.extract.store.store import ActivationStore
from handscope.labeling.exchange.pictures import import_pictures
from handscope.models.model import Model, load
from handscope.progress import Progress, bars
from handscope.run.folder import Run
from handscope.run.prompts import read_prompts
from handscope.study_file import STUDY_PROMPTS

PLAN = Plan(["double.1", "single.1", "single.3"], [20, 18, 14, 10, 6, 2], of=20)
PROMPTS, SEEDS, DRAWS = 16, range(12), 200


def taken(drawn: Run, model: Model, folder: Path, name: str, progress: Progress, noises: int = 1) -> Run:
    """The pictures of a run as given ones."""
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    lines = []
    for sample, row in drawn.metadata().items():
        shutil.copy(drawn.image_path(sample), pictures)
        lines.append(json.dumps({"file_name": row["file_name"], "prompt": row["prompt"]}))
    (pictures / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    run = Run(folder / name)
    import_pictures(model, run, pictures, noises=noises, progress=progress)
    return run


def vectors(store: ActivationStore, samples: list[str]) -> dict[tuple[str, int], np.ndarray]:
    """Mean vectors of each sample's tokens, (samples, width), by cell."""
    found = {}
    for cell in store.cells:
        x, tokens = store.read(cell.block, cell.step)
        mean = pd.DataFrame(x).groupby(tokens["sample"].to_numpy()).mean()
        found[str(cell.block), cell.step] = mean.loc[samples].to_numpy()
    return found


def compared(drawn: np.ndarray, given: np.ndarray) -> dict[str, float]:
    """One row of the table."""
    spread = drawn.std(0, ddof=1)
    random = np.random.default_rng(0)
    halves = []
    for _ in range(DRAWS):
        first = random.permutation(len(drawn)) < len(drawn) // 2
        halves.append(np.sqrt(np.mean(((drawn[first].mean(0) - drawn[~first].mean(0)) / spread) ** 2)))
    together = [np.corrcoef(a, b)[0, 1] for a, b in zip(drawn.T, given.T)]
    return {
        "shift": float(np.sqrt(np.mean(((given.mean(0) - drawn.mean(0)) / spread) ** 2))),
        "halves": float(np.mean(halves)),
        "halves_95": float(np.quantile(halves, 0.95)),
        "variance_ratio": float(given.var(0).sum() / drawn.var(0).sum()),
        "correlation": float(np.median(together)),
    }


@torch.no_grad()
def encoded(model: Model, run: Run) -> dict[str, float]:
    """How far the encoding of a drawn picture is from the latents that it was decoded from."""
    errors, pictures, scale = [], [], []
    for sample in list(run.metadata())[:64]:
        image = torch.tensor(run.image(sample)).permute(2, 0, 1)[None].float() / 255
        latents, last = model.encode_image(image), run.trajectory(sample).latents[-1].float()
        again = model.decode(latents, *image.shape[2:])
        errors.append(float((latents[0] - last).square().mean()))
        scale.append(float(last.var()))
        pictures.append(-10 * np.log10(float((again - image).square().mean())))
    return {"latent_error_over_sd": float(np.sqrt(np.mean(errors) / np.mean(scale))), "psnr": float(np.mean(pictures))}


def main(folder: Path) -> None:
    model = load("organism")
    folder.mkdir(parents=True, exist_ok=True)
    with bars() as progress:
        drawn = Run(folder / "drawn")
        generate(model, drawn, read_prompts(STUDY_PROMPTS)[:PROMPTS], SEEDS, progress=progress)
        runs = {1: taken(drawn, model, folder, "given", progress), 4: taken(drawn, model, folder, "four", progress, 4)}
        print(pd.Series(encoded(model, drawn)).to_string(), "\n")
        whole = extract(model, drawn, PLAN, tokens="all", progress=progress)
        names = list(drawn.metadata())
        one = vectors(whole, names)
        for noises, run in runs.items():
            by_name = {row["given"]["name"].removesuffix(".png"): sample for sample, row in run.metadata().items()}
            read = vectors(extract(model, run, PLAN, tokens="all", progress=progress), [by_name[n] for n in names])
            rows = [{"block": b, "step": s, **compared(one[b, s], read[b, s])} for b, s in one]
            print(f"{noises} noises a picture, n = {len(names)}")
            print(pd.DataFrame(rows).round(3).to_string(index=False), "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    main(parser.parse_args().folder)
