"""Make the runs that the gallery shows, and cut what it reads of them down into tests/figures/results.

    python docs/make_gallery_results.py runs/gallery

Every stage goes on where it stopped, so the same command again does only what is missing.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import handscope as hs
import numpy as np
import pandas as pd
import yaml
from handscope.analysis.statistics.rates import rates_by
from handscope.comparison.compare import compare
from handscope.evaluation.commitment import predicted_pictures
from handscope.inside.lens import BlockLens
from handscope.labeling.database.labels import Labels
from handscope.labeling.subject import Values, set_subject, subject_of
from handscope.models.sampling import Sampling
from handscope.organism.study.regions import regions_of
from handscope.probes.choose import saved_probes
from handscope.probes.watch import watch
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
OUT = ROOT / "tests" / "figures" / "results"
SHOWN = (20, 16, 12, 8, 4, 1)
LEVELS = {"good": "good", "good?": "between", "unsure": "between", "bad?": "between", "bad": "bad"}


def make(runs: Path) -> None:
    """Everything that the command line makes, and people's verdicts as ratings of whole pictures."""
    study = yaml.safe_load((ROOT / "datasets" / "demo.yaml").read_text())
    study |= {"seeds": {"first": 0, "count": 8}, "permutations": 500, "probe_permutations": 500}
    arms = yaml.safe_load((ROOT / "datasets" / "evaluate.yaml").read_text())
    arms |= {"seeds": {"first": 0, "count": 2}, "folder": str((runs / "evaluate").resolve())}
    runs.mkdir(parents=True, exist_ok=True)
    for name, file in (("study", study), ("evaluate", arms)):
        (runs / f"{name}.yaml").write_text(yaml.safe_dump(file))
    models = "organism,organism-small"
    handscope("replicate", runs / "study.yaml", "--models", models, "--out", runs / "replication")
    both = [runs / "replication" / name for name in models.split(",")]
    compare([hs.Run(path) for path in both], runs / "comparison", samples=32, pairings=19, permutations=200)
    handscope("evaluate", runs / "evaluate.yaml")
    handscope("study", ROOT / "datasets" / "paired.yaml", "--set", f"run={runs / 'paired'}")
    run = hs.Run(both[0])
    handscope("commit", run.path, "--samples", 64)
    rate(run)
    handscope("ratings", run.path, "--classifier", "none", "--scores", run.path / "scores.csv")
    subject = subject_of(run)
    set_subject(run, replace(subject, values=Values("the verdict", ["good", "between", "bad"], ordered=True)))
    verdicts = {name: LEVELS[one.verdict] for name, one in Labels(run.labels_path).current().items()}
    pd.DataFrame(verdicts.items(), columns=["sample", "value"]).to_csv(run.path / "values.csv", index=False)
    handscope("values", run.path, "--permutations", 100)


def handscope(*arguments: object) -> None:
    """A command, as it is given in a terminal."""
    subprocess.run([sys.executable, "-m", "handscope", *map(str, arguments)], check=True)


def rate(run: hs.Run) -> None:
    """The shipped verdicts of people as ratings; and scores to hold against them."""
    labels, samples = Labels(run.labels_path), run.metadata()
    given = pd.read_csv(ROOT / "datasets" / "hand_labels.csv").set_index("sample")
    values = given["verdict"].map({"good": 1.0, "good?": 1.0, "unsure": 0.5, "bad?": 0.0, "bad": 0.0})
    for sample in given.index.intersection(list(samples)):
        if given["image_sha256"][sample] == (sha := samples[sample]["image_sha256"]):
            labels.rate(sample, sha, "hand labels", values[sample], None, f"gallery-{sample}")
    seen = pd.read_csv(run.analysis_dir / "image_statistics.csv")
    statistics = ["sample", "area", "contrast", "brightness", "gradient"]
    seen.loc[seen["step"] == 1, statistics].to_csv(run.path / "scores.csv", index=False)


def cut(runs: Path) -> None:
    """Keep what the gallery reads: tables to four digits, and a few pictures."""
    replication, comparison = runs / "replication", runs / "comparison"
    run, analysis = hs.Run(replication / "organism"), replication / "organism" / "analysis"
    for name in ("probes", "baselines", "added", "contrasts", "reliability", "cosines", "transfer"):
        keep(analysis / f"{name}.csv", f"demo/{name}.csv")
    for name in ("value_confusion", "commitment", "ratings"):
        keep(analysis / f"{name}.csv", f"demo/{name}.csv")
    keep(runs / "paired" / "analysis" / "pairs.csv", "paired/pairs.csv")
    for folder, names in ((comparison, "cells profiles streams"), (replication, "each over")):
        for name in names.split():
            keep(folder / f"{name}.csv", f"{folder.name}/{name}.csv")
    for name in ("contrasts", "rates", "costs"):
        keep(runs / "evaluate" / f"{name}.csv", f"evaluate/{name}.csv")
    keep_rates(run)
    keep_pictures(run)


def keep(source: Path, name: str) -> None:
    """A table, its numbers to four digits."""
    target = OUT / name
    target.parent.mkdir(parents=True, exist_ok=True)
    pd.read_csv(source).to_csv(target, index=False, float_format="%.4g")


def keep_rates(run: hs.Run) -> None:
    """Shares of bad samples by what prompts state, and the samples of one cell on its plane."""
    table = pd.read_csv(run.analysis_dir / "samples.csv")
    stated = pd.DataFrame([subject_of(run).stated(prompt) for prompt in table["prompt"]])
    rates_by(stated, table["bad"], table["prompt"]).to_csv(OUT / "demo/rates.csv", index=False, float_format="%.4g")
    plane = load_file(run.analysis_dir / "cells.safetensors")["single.3/4/plane"]
    np.savez_compressed(OUT / "demo/plane.npz", xy=plane.astype(np.float16), bad=table["bad"].to_numpy(np.uint8))


def keep_pictures(run: hs.Run) -> None:
    """Pictures with labels; one generation with its hand, through the lens, and watched."""
    current = Labels(run.labels_path).current()
    kinds = {name: [one for one in sorted(current) if current[one].verdict == name] for name in ("good", "bad")}
    chosen = [kinds[name][place] for name in kinds for place in (0, 11, 23, 42)]
    annotations = [current[name] for name in chosen]
    np.savez_compressed(
        OUT / "demo/sheet.npz", samples=chosen, images=np.stack([run.image(name) for name in chosen]),
        labels=np.stack([one.labels for one in annotations]), verdicts=[one.verdict for one in annotations],
        instances=np.stack([one.instances for one in annotations]),
    )  # fmt: skip
    model = hs.load("organism")
    sampling, sample = Sampling(model, steps=20), run.metadata()[chosen[0]]
    trajectory, places = run.trajectory(sample["sample"]), [20 - step for step in SHOWN]
    pictures = predicted_pictures(model, trajectory, sampling.height, sampling.width)
    lens, rows = BlockLens(sampling), []
    for index in places[1::2]:
        said = lens.read(trajectory.latents[index][None], [sample["prompt"]], index)
        rows.append([sampling.images(said.clean(block))[0] for block in lens.blocks])
    np.savez_compressed(OUT / "demo/lens.npz", pictures=np.swapaxes(rows, 0, 1), blocks=lens.blocks, steps=SHOWN[1::2])
    seen = watch(model, saved_probes(run.probes_dir, ["double.1", "single.3"]), sample["prompt"], int(sample["seed"]))
    np.savez_compressed(
        OUT / "demo/watch.npz", x0=seen.x0[places], scores=seen.scores[:, places].astype(np.float16), steps=SHOWN,
        blocks=seen.blocks,
    )  # fmt: skip
    hand = regions_of(run)[0]
    shapes = hand.shapes(pictures[places])
    found = np.full((len(shapes), max(len(shape) for shape in shapes if shape is not None), 2), np.nan, np.float16)
    for row, shape in zip(found, shapes):
        row[: 0 if shape is None else len(shape)] = np.empty((0, 2)) if shape is None else shape
    table = pd.read_csv(run.analysis_dir / "commitment.csv")
    own = table[(table["sample"] == sample["sample"]) & (table["region"] == hand.name)]
    decided = own[np.isclose(own["tolerance"], hand.tolerance)]["step"].iloc[0]
    np.savez_compressed(
        OUT / "demo/film.npz", pictures=pictures[places], shapes=found, steps=SHOWN, decided=decided
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]))
    cut(Path(sys.argv[1]))
