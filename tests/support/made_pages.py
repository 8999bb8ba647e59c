"""What README and docs/ take as given: a small run of the organism, and files and names for their blocks."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

SAMPLE = "1379ff25-00007"
"""The sample that pages name; the run here has others, and one of these is put in its place."""
SIZES = r"\b(1024|768)\b"
"""Pixels that pages name, of large models; the organism's are put in their place."""


def make_demo(folder: Path) -> None:
    """48 samples of eight captions by the organism, labelled, with four cells' activations, tables and probes."""
    import handscope as hs
    from handscope.analysis import analyze
    from handscope.organism.captions import CAPTIONS
    from handscope.organism.study.auto import label_auto
    from handscope.probes import probe

    model, run = hs.load("organism"), hs.Run(folder)
    hs.generate(model, run, [str(caption) for caption in CAPTIONS[:8]], range(6), steps=20)
    label_auto(run)
    hs.extract(model, run, hs.Plan(["double.1", "single.1", "single.3"], [18, 12, 8], of=20))
    analyze(run, permutations=19, folds=4)
    probe(run, permutations=9, folds=4)


@dataclass
class World:
    """The folder in which a page's blocks are run, and the names that they have in common."""

    page: str
    folder: Path
    demo: Path
    tiny: Path
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "page"})

    @cached_property
    def run(self) -> Any:
        import handscope as hs

        return hs.Run(self.demo)

    @cached_property
    def model(self) -> Any:
        import handscope as hs

        return hs.load("organism")

    @cached_property
    def sample(self) -> str:
        return sorted(self.run.metadata())[0]

    @cached_property
    def pipe(self) -> Any:
        """The organism's pipeline, which draws at its own size where none is asked for."""
        model, pipe = self.model, self.model.pipe
        own = {"height": model.height, "width": model.width, "max_sequence_length": model.max_sequence_length}
        call = type(pipe).__call__
        small = {"__call__": lambda self, *args, **kwargs: call(self, *args, **{**own, **kwargs})}
        pipe.__class__ = type(type(pipe).__name__, (type(pipe),), small)
        return pipe

    def file(self, name: str) -> None:
        """Make a file or folder that the page names, unless it is there."""
        path = self.folder / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            ELSEWHERE.get((self.page, name), FILES.get(name))(self, path)


def _run(world: World, path: Path) -> None:
    shutil.copytree(world.demo, path)


def _few(world: World, path: Path) -> None:
    """The demo's run with one sample of each prompt, and no labels."""
    from handscope.run.folder import Run

    run, rows = Run(path), world.run.metadata()
    first = {row["prompt"]: sample for sample, row in sorted(rows.items())}
    shutil.copy(world.demo / "run.yaml", path)
    for sample in first.values():
        for file in (world.run.image_path(sample), world.run.trajectory_path(sample)):
            place = path / file.relative_to(world.demo)
            place.parent.mkdir(exist_ok=True)
            shutil.copy(file, place)
    run.write_metadata({sample: rows[sample] for sample in first.values()})


def _pictures(world: World, path: Path) -> None:
    path.mkdir(exist_ok=True)
    for name in sorted(world.run.metadata())[:12]:
        shutil.copy(world.run.image_path(name), path)


def _sorted_pictures(world: World, path: Path) -> None:
    """Pictures in folders of what they are called."""
    for i, name in enumerate(sorted(world.run.metadata())[:24]):
        place = path / ("whole", "broken")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(world.run.image_path(name), place)


def _listed_pictures(world: World, path: Path) -> None:
    """Pictures, and beside them a table of what they are called."""
    _pictures(world, path)
    names = sorted(picture.name for picture in path.iterdir())
    table = pd.DataFrame({"file": names, "label": np.resize(["closed", "broken"], len(names))})
    table.to_csv(path / "labels.csv", index=False)


def _coco(world: World, path: Path) -> None:
    import json

    _pictures(world, path.parent)
    names = sorted(picture.name for picture in path.parent.iterdir())
    size = {"height": world.model.height, "width": world.model.width}
    whole = {"bbox": [10, 10, 70, 70], "area": 4900, "iscrowd": 0}
    said = {
        "images": [{"id": i, "file_name": name, **size} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "hand_ok"}, {"id": 2, "name": "hand_malformed"}],
        "annotations": [
            {"id": i + 1, "image_id": i, "category_id": 1 + i % 2, **whole} for i in range(len(names))
        ],
    }
    path.write_text(json.dumps(said))


def _metric(world: World, path: Path) -> None:
    """A module `mine` with a metric of one line."""
    path.with_name("mine.py").write_text("def pick_score(pictures, prompts):\n    return pictures.mean((1, 2, 3))\n")


def _birds(world: World, path: Path) -> None:
    path.write_text("a bird on a branch\n")


def _prompts(world: World, path: Path) -> None:
    path.write_text("\n".join(dict.fromkeys(row["prompt"] for row in world.run.metadata().values())))


def _verdicts(world: World, path: Path) -> None:
    """A table of 0 (good) and 1 (bad) for every sample."""
    names = sorted(world.run.metadata())
    pd.DataFrame({"sample": names, "verdict": np.arange(len(names)) % 2}).to_csv(path, index=False)


def _picture_labels(world: World, path: Path) -> None:
    """What a person said of the pictures in FOLDER."""
    world.file("FOLDER")
    names = sorted(str(picture) for picture in (world.folder / "FOLDER").iterdir())
    pd.DataFrame({"path": names, "label": np.resize(["good", "bad"], len(names))}).to_csv(path, index=False)


def _model(world: World, path: Path) -> None:
    path.symlink_to(world.tiny)


def _ring(world: World, path: Path) -> None:
    path.write_text("name: ring\nnoun: ring\nplural: rings\nkinds:\n  gap: {scope: local}\n")


FILES: dict[str, Callable[[World, Path], None]] = {
    "runs/demo": _run,
    "RUN": _run,
    "runs/study": _run,
    "runs/fragment": _few,
    "runs/raised": _few,
    "FOLDER": _pictures,
    "pictures": _sorted_pictures,
    "photos": _pictures,
    "rings": _listed_pictures,
    "coco/instances.json": _coco,
    "prompts.txt": _prompts,
    "birds.txt": _birds,
    "verdicts.csv": _verdicts,
    "labels.csv": _picture_labels,
    "mine:pick_score": _metric,
    "MODEL": _model,
    "midjourney": _pictures,
}
"""Files by the names that pages have for them."""

ELSEWHERE = {("docs/families.md", "FOLDER"): _model}
"""Files that are something else on one page."""


def _tokens(world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean tokens of the labelled samples in one cell, whether they are bad, and their prompts."""
    import handscope as hs

    x, tokens = hs.ActivationStore(world.run.activations_dir).read("single.3", 12)
    means = pd.DataFrame(x).groupby(tokens["sample"].to_numpy()).mean()
    rows = world.run.metadata()
    bad = np.arange(len(means)) % 2
    return means.to_numpy(), bad, np.array([rows[sample]["prompt"] for sample in means.index])


def _direction(world: World) -> torch.Tensor:
    x, bad, _ = _tokens(world)
    return torch.tensor(x[bad == 1].mean(0) - x[bad == 0].mean(0))


def _images(world: World) -> torch.Tensor:
    pictures = [world.run.image(sample) for sample in sorted(world.run.metadata())[:4]]
    return torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2) / 255


def _plan(world: World) -> Any:
    import handscope as hs

    return hs.Plan(["double.1", "single.3"], [12, 8], of=20)


def _own_run(world: World) -> Any:
    """A run that a page may change: of few samples, or of none on the page that brings its pictures."""
    import handscope as hs

    if world.page == "docs/given.md":
        return hs.Run(world.folder / "runs/empty")
    if not (world.folder / "runs/few").exists():
        (world.folder / "runs").mkdir(exist_ok=True)
        _few(world, world.folder / "runs/few")
    return hs.Run(world.folder / "runs/few")


def _latents(world: World) -> torch.Tensor:
    return world.run.trajectory(world.sample).latents[None, 8].float()


def _caption(world: World) -> str:
    return next(iter(world.run.metadata().values()))["prompt"]


PROMPTS_OF: dict[str, Callable[[World], Any]] = {
    "docs/probes.md": lambda world: _tokens(world)[2],
    "docs/metrics.md": lambda world: [f"prompt {i // 4}" for i in range(40)],
}
"""The prompts of pages whose data are not one picture."""

NAMES: dict[str, Callable[[World], Any]] = {
    "model": lambda world: world.model,
    "pipe": lambda world: world.pipe,
    "run": _own_run,
    "latents": _latents,
    "prompts": lambda world: PROMPTS_OF.get(world.page, lambda world: [_caption(world)])(world),
    "plan": _plan,
    "images": _images,
    "pictures": _images,
    "direction": _direction,
    "mask": lambda world: torch.arange(144) % 12 < 6,
    "x": lambda world: _tokens(world)[0],
    "tokens": lambda world: _tokens(world)[0],
    "y": lambda world: _tokens(world)[1],
    "prompt": _caption,
    "torch": lambda world: torch,
    "np": lambda world: np,
    "verdicts": lambda world: {sample: i % 2 == 1 for i, sample in enumerate(sorted(_own_run(world).metadata()))},
    "loss": lambda world: lambda clean: clean.square().mean((1, 2)),
    "my_keypoints": lambda world: lambda pictures: [np.array([[40.0, 40.0], [50.0, 60.0]])] * len(pictures),
    "features": lambda world: np.random.default_rng(0).normal(size=(40, 6)),
    "reference": lambda world: np.random.default_rng(1).normal(size=(40, 6)),
}
"""Names that pages use without saying where they come from."""
