"""Samples of pictures that the model did not draw: read, fitted to one size, and put into a run with their labels."""

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

from ...errors import HandscopeError
from ...files import atomic, sha256, write_csv
from ...models.model import Model
from ...models.registry import hookable
from ...progress import Progress, quiet
from ...run.folder import Run, is_given
from ...run.prompts import check_seeds, own_seed
from ..database.annotation import Annotation
from ..database.labels import Labels
from ..subject import subject_of
from .fit import WAYS, Fit, fitted
from .importing import same_judgement
from .on_grid import on_grid, verdicts
from .sources import Source, sources

AUTHOR = "given"
"""The author of labels that came with the pictures."""
LEFT_OUT = "left_out.csv"
NAMED = 5
"""Bad pictures that a refusal names before it counts the rest."""


@dataclass(frozen=True)
class ImportedPictures:
    """What became of a folder's pictures.

    Attributes
    ----------
    samples : list of str
        Those that the folder's pictures are in the run, new or not.
    added : int
        How many of them were not there yet.
    labels : int
        Labels that were new, or said something new.
    left_out : dict of str by str
        Why a picture was left out, by its name in the folder.
    passed_over : tuple of str
        What the folder says of pictures that is neither good nor bad, so that they have no label.
    """

    samples: list[str]
    added: int
    labels: int
    left_out: dict[str, str]
    passed_over: tuple[str, ...] = ()


def import_pictures(
    model: Model,
    run: Run,
    folder: str | os.PathLike[str],
    steps: int = 20,
    guidance: float = 3.5,
    height: int | None = None,
    width: int | None = None,
    fit: str | None = None,
    noises: int = 1,
    seed: int = 0,
    prompt: str = "",
    group: str | None = None,
    good: Sequence[str] = (),
    bad: Sequence[str] = (),
    batch_size: int = 16,
    skip_bad: bool = False,
    progress: Progress = quiet,
) -> ImportedPictures:
    """Make a sample of every picture of a folder that the run does not have yet, with the labels that came with it.

    `extract` encodes the pictures, puts noise on them, and reads one forward a step (`extract.given.read_given`). Each
    picture is one sample whatever `noises` is, has noise of its own, and is its own group unless several share a
    prompt, or a value of the column `group`: groups are what folds hold together, as prompts of drawn samples are.

    Parameters
    ----------
    folder : path
        An imagefolder (metadata.jsonl or metadata.csv), COCO's instances, a CSV, or pictures alone; see `sources`.
    steps, guidance : int, float
        Of the schedule whose noise levels `extract` reads at, and of its calls, as in `generate`.
    height, width : int, optional
        In pixels; by default what the model was trained for.
    fit : str, optional
        For pictures of another aspect: ``crop``, ``pad`` or ``stretch``, see `Fit`. None refuses them.
    noises : int
        How many noises each picture is read with; activations are the mean over them.
    seed : int
        Another one gives every picture other noises.
    prompt : str
        What the model is told of pictures whose folder says nothing.
    group : str, optional
        A column of the folder's table.
    good, bad : sequences of str
        What the folder calls good and bad, where it does not speak as handscope does: its categories or labels. Other
        categories are then passed over.
    batch_size : int
        Pictures in one forward of `extract`, by default.
    skip_bad : bool
        Leave out pictures that cannot be used, and name them in ``samples/left_out.csv``; else one of them is enough
        for nothing to be imported.

    Notes
    -----
    A token belongs to an instance if at least half of it does; an instance without such a token has the one that it
    fills most. What the folder does not say stays unlabelled. A verdict without a place is of the whole picture: all of
    its tokens are then those of one instance.

    Raises
    ------
    HandscopeError
        The run holds drawn samples, or was begun with other settings; a picture cannot be read, is too small, of
        another aspect, there twice, or labelled on another grid; a label is not known; the model's family cannot
        encode pictures.
    """
    plan = _settings(model, run, steps, guidance, height, width, fit, noises, seed, batch_size)
    found, told = sources(Path(folder))
    verdict = verdicts(subject_of(run), found, good, bad, told)
    grid = model.grid(plan["height"], plan["width"])
    ready: dict[str, _Ready] = {}
    left_out: dict[str, str] = {}
    names: dict[str, str] = {}
    for number, source in enumerate(found):
        progress("read", number, len(found))
        try:
            one = _read(source, (plan["height"], plan["width"]), fit, grid, verdict, prompt, group)
            same = names.setdefault(one.digest, source.name)
            if same != source.name:
                raise HandscopeError(f"it is the same picture as {same}")
        except HandscopeError as error:
            left_out[source.name] = str(error).rstrip(".")
            continue
        ready[one.sample] = one
    _refuse(left_out, len(found), told, skip_bad)
    run.write_settings(
        {
            "model": {"weight_hash": model.weight_hash, "dtype": str(model.dtype).removeprefix("torch.")},
            "generation": plan | {"scheduler": model.scheduler, "trajectories": False, "pictures": "given"},
            "provenance": model.provenance,
        }
    )
    with run.writing_samples():
        added = _write(model, run, ready, plan, seed, min(batch_size, len(ready)), progress)
        if left_out:
            table = pd.DataFrame(list(left_out.items()), columns=["picture", "reason"])
            write_csv(run.samples_dir / LEFT_OUT, table)
    labels = _label(run, ready, told)
    passed = {one.source.said for one in ready.values() if one.source.said and not verdict(one.source.said)}
    return ImportedPictures(list(ready), added, labels, left_out, tuple(sorted(passed)))


@dataclass(frozen=True, eq=False)
class _Ready:
    """A picture that can be used: what it becomes, and its labels and instances on the token grid."""

    source: Source
    digest: str
    fit: Fit
    prompt: str
    group: str
    labels: np.ndarray
    instances: np.ndarray
    verdict: str

    @property
    def sample(self) -> str:
        """The group before the dash, as of drawn samples the prompt."""
        return f"{hashlib.sha256(self.group.encode()).hexdigest()[:8]}-{self.digest[:12]}"


def _settings(
    model: Model,
    run: Run,
    steps: int,
    guidance: float,
    height: int | None,
    width: int | None,
    fit: str | None,
    noises: int,
    seed: int,
    batch_size: int,
) -> dict[str, Any]:
    """What `run.yaml` says of how pictures are read, or a refusal before any is opened."""
    for name, value in (("steps", steps), ("noises", noises), ("batch_size", batch_size)):
        if not isinstance(value, int) or value < 1:
            raise HandscopeError(f"Expected {name} to be a whole number of at least 1, found {value!r}.")
    if not isinstance(guidance, (int, float)) or not math.isfinite(guidance):
        raise HandscopeError(f"Expected guidance to be a number, found {guidance!r}.")
    if fit is not None and fit not in WAYS:
        raise HandscopeError(f"Expected fit to be {', '.join(WAYS)} or none, found {fit!r}.")
    check_seeds([seed])
    if any(not is_given(row) for row in run.metadata().values()):
        raise HandscopeError(
            f"{run.path} holds samples that a model drew: one run holds drawn or given pictures. Use another folder."
        )
    height = model.height if height is None else height
    width = model.width if width is None else width
    model.grid(height, width)
    hookable(model.transformer)
    model.family.schedule(model.pipe, steps, height, width)
    model.encode_image(torch.zeros(1, 3, height, width))  # a family that cannot is refused before anything is read
    return {"steps": steps, "guidance": float(guidance), "height": height, "width": width, "noises": noises}


def _read(
    source: Source,
    size: tuple[int, int],
    way: str | None,
    grid: tuple[int, int],
    verdict: Callable[[str], str],
    prompt: str,
    group: str | None,
) -> _Ready:
    """Read one picture and its labels; HandscopeError says what is wrong with it, without its name."""
    picture = opened(source.path)
    original = picture.size[::-1]
    if source.size is not None and source.size != original:
        raise HandscopeError(
            f"it has {original[0]} by {original[1]} pixels, and its labels are for {source.size[0]} by "
            f"{source.size[1]}: it was labelled on another grid"
        )
    fit = fitted(original, size, way)
    if group is not None and source.columns.get(group) in (None, ""):
        raise HandscopeError(f"it has no value in the column {group!r}, by which pictures are to be grouped")
    shared = source.prompt if group is None else str(source.columns[group])
    labels, instances, judged = on_grid(source, fit, original, grid, verdict)
    digest = sha256(fit.picture(picture).tobytes())
    told = source.prompt if source.prompt is not None else prompt
    return _Ready(source, digest, fit, told, shared or source.name, labels, instances, judged)


def opened(path: Path) -> Image.Image:
    """A picture file upright as 8-bit RGB on white; HandscopeError says what is wrong with it, without its name."""
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise HandscopeError(f"its pixels are of the kind {image.mode}: save it with 8 bits a colour")
            turned = ImageOps.exif_transpose(image)
            if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
                turned = turned.convert("RGBA")
                turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned)
            return turned.convert("RGB")
    except FileNotFoundError as error:
        raise HandscopeError("it is not there") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise HandscopeError(f"it could not be read ({next(iter(str(error).splitlines()), type(error))})") from error


def _refuse(left_out: dict[str, str], count: int, told: Path, skip_bad: bool) -> None:
    if not left_out or (skip_bad and len(left_out) < count):
        return
    named = "; ".join(f"{name}: {reason}" for name, reason in list(left_out.items())[:NAMED])
    more = f"; and {len(left_out) - NAMED} more" if len(left_out) > NAMED else ""
    raise HandscopeError(
        f"{len(left_out)} of {count} pictures of {told} cannot be used: {named}{more}. Nothing was imported"
        + ("." if skip_bad else ": mend them, or leave them out with --skip-bad.")
    )


def _write(
    model: Model,
    run: Run,
    ready: dict[str, _Ready],
    plan: dict[str, Any],
    seed: int,
    together: int,
    progress: Progress,
) -> int:
    """Write the pictures that the run lacks, each before its line."""
    rows = run.metadata()
    missing = [sample for sample in ready if sample not in rows or not run.image_path(sample).exists()]
    settings = {name: plan[name] for name in ("steps", "guidance", "height", "width")}
    for done, sample in enumerate(missing):
        progress("import", done, len(missing))
        one = ready[sample]
        own = own_seed(one.digest, seed)
        noise = model.noise(own, plan["height"], plan["width"])
        with atomic(run.image_path(sample)) as temporary:
            Image.fromarray(one.fit.picture(opened(one.source.path))).save(temporary)
        row = {
            "sample": sample,
            "prompt": one.prompt,
            "seed": own,
            "file_name": f"{sample}.png",
            "image_sha256": one.digest,
            "noise_sha256": sha256(noise.numpy().tobytes()),
            **settings,
            "batch_size": together,
            "given": {
                "name": one.source.name,
                "group": one.group,
                "noises": plan["noises"],
                **one.fit.facts(),
            },
        }
        run.append_metadata([row])
    progress("import", len(missing), len(missing))
    return len(missing)


def _label(run: Run, ready: dict[str, _Ready], told: Path) -> int:
    """Append what the folder says and the run's labels do not say yet."""
    labels = Labels(run.labels_path)
    new = []
    for sample, one in ready.items():
        if not one.verdict:
            continue
        kinds = one.source.kinds
        source = f"given, {told.name}"
        made = Annotation(sample, one.digest, one.labels, one.instances, one.verdict, kinds, AUTHOR, source)
        before = labels.newest(sample, AUTHOR)
        if before is None or not same_judgement(before, made):
            new.append(made)
    labels.add(new)
    return len(new)
