"""What mends the organism's hands, at which cost: LoRAs made here, repair by depth, and what costs draws alone.

    python bench/validity/mitigations.py data WORK      draws what is trained on
    python bench/validity/mitigations.py train WORK     trains the LoRA and its controls; goes on where it was stopped
    python bench/validity/mitigations.py sweep WORK     strengths of repair, on noises that are used for nothing else
    python bench/validity/mitigations.py repair WORK    repair beside the prompt alone, on new pairs
    python bench/validity/mitigations.py cost WORK      every mitigation on these pairs, and the figure; --run RUN is a
                                                        labelled run of the demo, which teaches triage
    python bench/validity/mitigations.py look WORK      shuffled sheets of 100 pairs before and after a repair
    python bench/validity/mitigations.py looked WORK    what WORK/look/verdicts.csv says of them

Each can be stopped and started again. Each evaluation is a file of `handscope evaluate`, written into WORK. Arms that
are trained: a LoRA of plausible renders, and as its controls the same LoRA on the same renders with captions permuted;
on malformed renders; and all weights trained on the plausible ones for as many steps, which is more of the training
that made the organism. What was learnt of malformed renders, half of it taken away (task arithmetic, Ilharco et al.
2023, arXiv 2212.04089), was tried in 0.4's first table and mended nothing. Numbers are in docs/mitigations.md.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import handscope as hs
import numpy as np
import pandas as pd
import torch
import yaml
from handscope import figures
from handscope.analysis.statistics.paired import paired_rates
from handscope.anatomy.read.embedding import landmark_features
from handscope.evaluation.arms import Arm
from handscope.evaluation.blind import KEY, blind
from handscope.evaluation.evaluate import Outcome, Plan, evaluate
from handscope.evaluation.quality import diversity
from handscope.evaluation.recipe import Recipe
from handscope.evaluation_file import read_evaluation
from handscope.files import write_csv
from handscope.mitigations.learners import DreamBooth, LoRA
from handscope.mitigations.pictures import captioned
from handscope.mitigations.settings import Training
from handscope.mitigations.train import train
from handscope.models.model import Model
from handscope.organism.render import render_dataset
from handscope.organism.silhouette import silhouette
from handscope.organism.study.catalogue import triage_arms
from handscope.organism.study.mend import setting_of
from handscope.organism.template import template
from handscope.progress import Progress, bars
from handscope.report.evaluation import evaluation_page
from handscope.run.folder import Run, sample_id
from matplotlib import rc_context
from PIL import Image, ImageDraw

SHARDS, EACH, SEED = (1, 2), 512, 9000  # the organism was trained on these shards among others
TRAINING = {"batch": 16, "schedule": "cosine", "warm_up": 20, "average": 0.98, "dropout": 0.1, "save_every": 50}
STEPS, RATE, WHOLE_RATE, RANK = 300, 2e-3, 1e-4, 16
MADE = {"lora": "plausible", "more training": "plausible", "lora malformed": "malformed", "lora permuted": "permuted"}
"""What is trained, and on which pictures."""
REFERENCE, REFERENCE_SEED = 1000, 77
CONTROLS, STRENGTHS = [0, 0.2, 0.4, 0.55, 0.7, 0.85, 1, 1.3], [0.6, 1]
LOOK = 19


def data(work: Path) -> None:
    """Folders of pictures with captions."""
    plausible = [render_dataset(EACH, seed) for seed in SHARDS]
    images = torch.cat([part.images for part in plausible])
    captions = [caption for part in plausible for caption in part.captions]
    _write(work / "data" / "plausible", images, captions)
    _write(work / "data" / "permuted", images, np.random.default_rng(0).permutation(captions).tolist())
    malformed = render_dataset(len(captions), SEED, corrupt=True)
    _write(work / "data" / "malformed", malformed.images, malformed.captions)


def _write(folder: Path, images: torch.Tensor, captions: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (image, caption) in enumerate(zip(images, captions, strict=True)):
        name = f"{number:04d}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": caption}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def train_all(work: Path) -> None:
    """The LoRA and its controls."""
    for name, pictures in MADE.items():
        model = hs.load("organism")
        whole = name == "more training"
        learner = DreamBooth(model) if whole else LoRA(model, RANK)
        training = Training(steps=STEPS, rate=WHOLE_RATE if whole else RATE, **TRAINING)
        with bars() as progress:
            train(learner, work / "made" / name, captioned(work / "data" / pictures), training, progress=progress)


def evaluation(work: Path, name: str, arms: Sequence[Mapping[str, Any]], seeds: Mapping[str, int], **more: Any) -> Plan:
    """An evaluation of `handscope evaluate`, whose file is written into WORK. All share the pictures that they can."""
    said = {"folder": str((work / "arms").absolute()), "prompts": "study", "seeds": dict(seeds), "scorer": "organism",
            "defaults": {"model": "organism", "steps": 20, "guidance": 3.5}, "arms": list(arms), **more}  # fmt: skip
    path = work / f"{name}.yaml"
    path.write_text(yaml.safe_dump(said, sort_keys=False))
    return read_evaluation(path)


def evaluated(work: Path, name: str, plan: Plan, ways: Any = None) -> Outcome:
    """Draw, compare, and keep the tables and the page under the evaluation's name."""
    with bars() as progress:
        outcome = evaluate(plan, ways, progress=progress)
        for table in ("rates", "contrasts", "costs", "metrics"):
            write_csv(work / f"{name}_{table}.csv", getattr(outcome, table))
        evaluation_page(plan, outcome, progress).rename(work / f"{name}.html")
    for arm, why in outcome.failed.items():
        print(f"{arm} failed: {why}")
    return outcome


PLAIN = {"name": "organism"}


def painted(name: str, **said: Any) -> dict[str, Any]:
    """An arm that paints the organism's pictures anew, by template."""
    return {"name": name, "of": "organism", "repair": {"find": "template", **said}}


def sweep(work: Path) -> None:
    """The malformed rate, and how far the drawn outline follows the depth, over strengths."""
    arm = painted("sweep", network="organism-depth", strength=STRENGTHS, control=CONTROLS)
    plan = evaluation(work, "sweep", [PLAIN, arm], {"first": 3900, "count": 1})
    outcome = evaluated(work, "sweep", plan)
    rates = outcome.rates[(outcome.rates["unit"] == "picture") & (outcome.rates["measure"] == "implausible")]
    rows = []
    for one in rates.set_index("arm").loc[list(plan.arms)[1:]].itertuples():
        doses = plan.variants[one.Index].doses
        followed = follows(plan, one.Index)
        rows.append({"strength": doses["repair.strength"], "control": doses["repair.control"], "n": one.n,
                     "rate": one.rate, "lo": one.lo, "hi": one.hi, "follows": followed.mean(),
                     "follows_half": 1.96 * followed.std(ddof=1) / len(followed) ** 0.5})  # fmt: skip
    table = pd.DataFrame(rows)
    write_csv(work / "sweep.csv", table)
    print(table.to_string())
    with rc_context(figures.STYLE):
        drawn = figures.figure(9, 3.6)
        left, right = drawn.subplots(1, 2)
        table = table.assign(series="strength " + table["strength"].astype(str), dose=table["control"])
        figures.dose_response(table, left, dose="strength of control", label="malformed, %")
        half = table["follows_half"]
        table = table.assign(rate=table["follows"], lo=table["follows"] - half, hi=table["follows"] + half)
        label = "outline and depth in common, %"
        figures.dose_response(table, right, dose="strength of control", label=label)
        figures.save(drawn, work, "sweep")


def follows(plan: Plan, arm: str) -> pd.Series:
    """How much of silhouette and depth is common to both (intersection over union), a mean for each prompt."""
    before, after = (Run(plan.folder / name.replace(" ", "_")) for name in ("organism", arm))
    found = []
    for prompt, seed in plan.pairs:
        name = sample_id(prompt, seed)
        depth = template(before.image(name), prompt)[1] > 0
        drawn = silhouette(after.image(name))
        found.append((prompt, (depth & drawn).sum() / (depth | drawn).sum()))
    return pd.DataFrame(found, columns=["prompt", "share"]).groupby("prompt")["share"].mean()


REPAIRS = [
    painted("repair", network="organism-depth", strength=1, control=1) | {"controls": ["inpainting"]},
    painted("inpainting", strength=1) | {"control": True},
]
"""As strongly as the network was trained, which was fixed before anything was drawn; and the prompt alone."""


def repair(work: Path, noises: int) -> None:
    """Repair beside the prompt alone, on every picture: what is mended, and what is broken."""
    plan = evaluation(work, "repair", [PLAIN, *REPAIRS], {"first": 4000, "count": noises})
    outcome = evaluated(work, "repair", plan)
    print(said(outcome))
    changed = 0
    for name in ("repair", "inpainting"):
        run, before = Run(plan.folder / name.replace(" ", "_")), Run(plan.folder / "organism")
        for prompt, seed in plan.pairs:
            sample = sample_id(prompt, seed)
            mask = template(before.image(sample), prompt)[0]
            changed += int((before.image(sample)[~mask] != run.image(sample)[~mask]).any(-1).sum())
    print(f"{changed} pixels outside of the masks changed")


def cost(work: Path, noises: int, taught_by: Path | None) -> None:
    """Every mitigation on the same pairs, the reference of distances being renders that nothing was trained on."""
    reference = work / "reference"
    if not reference.exists():
        renders = render_dataset(REFERENCE, REFERENCE_SEED)
        _write(reference, renders.images, renders.captions)
    arms = [
        PLAIN,
        {"name": "true guidance 2", "negative": "", "true_cfg": 2},
        {"name": "more steps", "steps": 40},
        {"name": "best of 4", "best_of": {"n": 4, "by": "anatomy"}},
    ]
    if taught_by is not None:
        arms.append({"name": "triage", "mend": {"way": "triage image", "run": str(taught_by.absolute())}})
    there = [name for name in MADE if (work / "made" / name / "training.json").exists()]
    for name in there:
        made = work / "made" / name
        whole = {"transformer": str(made / "transformer")}
        weights = whole if name == "more training" else {"lora": {"path": str(made)}}
        control = {"controls": [one for one in there if one != "lora"]} if name == "lora" else {"control": True}
        arms.append({"name": name, **weights, **control})
    arms += REPAIRS
    more = {"metrics": ["kid"], "reference": str(reference.absolute())}
    plan = evaluation(work, "cost", arms, {"first": 4000, "count": noises}, **more)
    outcome = evaluated(work, "cost", plan, triage_of)
    print(said(outcome))
    whole = {}
    for arm, own in outcome.scored.pictures.groupby("arm", sort=False):
        seen = landmark_features(np.stack([np.asarray(Image.open(path)) for path in own["path"]]))
        whole[arm] = diversity(seen, own["prompt"].to_numpy())
    print(pd.Series(whole) / whole["organism"])


def said(outcome: Outcome) -> str:
    """Rates, differences and costs, a row an arm."""
    some = [table[(table["measure"] == "implausible") & (table["unit"] == "instance")].set_index("arm") for table in
            (outcome.rates, outcome.contrasts)]  # fmt: skip
    pairs = outcome.contrasts[outcome.contrasts["measure"] == "implausible"]
    pairs = pairs[pairs["unit"] == "picture"].set_index("arm")
    table = some[0][["n", "bad", "rate", "lo", "hi", "corrected", "corrected_lo", "corrected_hi"]]
    table = table.join(pairs[["difference", "low", "high", "mended", "broken", "p", "holm", "control_p"]])
    table = table.join(some[1][["corrected", "corrected_low", "corrected_high"]].add_suffix("_difference"))
    table = table.join(outcome.costs.set_index("arm")[["calls", "seconds", "calls_per_good"]])
    if len(outcome.metrics):
        table = table.join(outcome.metrics.set_index("arm")[["value", "lo", "hi"]].add_prefix("kid_"))
    return table.T.to_string()


def triage_of(recipe: Recipe, prompts: Sequence[str], progress: Progress) -> tuple[Model, Arm]:
    """The arm of triage that a run teaches, which begins another seed where the second step does not please."""
    assert recipe.mend is not None
    setting = setting_of(hs.load("organism"), Run(recipe.mend.run), window=(LOOK,), looks=(LOOK,), progress=progress)
    arm = next(one for one in triage_arms(setting) if one.name.startswith(recipe.mend.way))
    return setting.model, replace(arm, name=recipe.name)


def look(work: Path) -> None:
    """Pictures of 100 pairs, shuffled, on sheets of 25; which was before and which after stands in a file apart."""
    folder = work / "look"
    names = [sample_id(*pair) for pair in read_evaluation(work / "repair.yaml").pairs]
    target = blind(work / "arms", ["organism", "repair"], 100, samples={"organism": names, "repair": names})
    folder.mkdir(exist_ok=True)
    rows = list(target.metadata().values())
    for first in range(0, len(rows), 25):
        sheet = Image.new("RGB", (5 * 300, 5 * 324), "white")
        for place, row in enumerate(rows[first : first + 25]):
            at = (place % 5 * 300, place // 5 * 324)
            sheet.paste(Image.fromarray(target.image(row["sample"])).resize((288, 288), Image.Resampling.LANCZOS), at)
            asked = ", ".join(row["prompt"].split(", ")[:3])
            ImageDraw.Draw(sheet).text((at[0], at[1] + 290), f"{first + place}: {asked}", fill="black", font_size=13)
        sheet.save(folder / f"sheet-{first:03d}.png")


def looked(work: Path) -> None:
    """What was seen: verdicts of WORK/look/verdicts.csv, a number of a picture and good, bad or unsure a row."""
    given = pd.read_csv(work / "look" / "verdicts.csv").set_index("number")["verdict"]
    key = json.loads((work / "arms" / "blind" / KEY).read_text())["pictures"]
    rows = [(*key[f"look-{number:05d}"], {"good": 0.0, "bad": 1.0}.get(verdict)) for number, verdict in given.items()]
    wide = pd.DataFrame(rows, columns=["arm", "sample", "bad"]).pivot(index="sample", columns="arm", values="bad")
    prompts = [Run(work / "arms" / "organism").metadata()[name]["prompt"] for name in wide.index]
    print(paired_rates(wide["organism"].astype(float), wide["repair"].astype(float), prompts))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("data", "train", "sweep", "repair", "cost", "look", "looked"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--noises", type=int, default=24, help="of each of the 32 prompts, for repair and cost")
    parser.add_argument("--run", type=Path, help="a labelled run of the organism with trajectories, for triage")
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    if given.what == "cost":
        cost(given.work, given.noises, given.run)
    elif given.what == "repair":
        repair(given.work, given.noises)
    else:
        {"data": data, "train": train_all, "sweep": sweep, "look": look, "looked": looked}[given.what](given.work)


if __name__ == "__main__":
    main()
