"""Pictures of a folder by the prompts of an evaluation: by a table beside them, or by their names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import HandscopeError
from ..files import sha256
from ..labeling.exchange.pictures import opened
from ..labeling.exchange.sources import Source, sources
from ..run.folder import Run, sample_id


@dataclass(frozen=True)
class Given:
    """One picture that was made elsewhere.

    Attributes
    ----------
    path : Path
    prompt : str
    number : int, tells it from others of its prompt: a seed where one is said
    noise : str, family and hash of the noise that it was drawn from, where a run of handscope drew it; else ""
    """

    path: Path
    prompt: str
    number: int
    noise: str = ""


def given_pictures(folder: Path, prompts: Sequence[str]) -> list[Given]:
    """The pictures of a folder, each with its prompt.

    A picture's prompt stands in the table beside it (an imagefolder's metadata, a CSV with file_name and prompt), else
    in its name: the name begins as a sample of handscope is named, or with the prompt's letters and digits, others
    being underscores (``a_cat_on_a_mat_003.png``), or it lies in a folder of such a name. Digits behind it tell
    pictures of one prompt apart.

    Parameters
    ----------
    prompts : of the evaluation; pictures of others are refused

    Raises
    ------
    HandscopeError
        There are none, or one of them is of no prompt of the evaluation.
    """
    found, told = sources(folder)
    family = _family_beside(told)
    by_id = {sample_id(prompt, 0).partition("-")[0]: prompt for prompt in prompts}
    by_slug = {slug(prompt): prompt for prompt in prompts}
    known, taken, unknown, made = set(prompts), dict[str, set[int]](), list[str](), list[Given]()
    for source in found:
        prompt = source.prompt
        if prompt is None:
            prompt = _by_name(source.name, by_id, by_slug)
        if prompt is None or prompt not in known:
            unknown.append(source.name)
            continue
        numbers = taken.setdefault(prompt, set())
        number = _number(source, len(numbers))
        while number in numbers:
            number += 1
        numbers.add(number)
        noise = str(source.columns.get("noise_sha256") or "")
        made.append(Given(source.path, prompt, number, f"{family} {noise}" if family and noise else ""))
    if unknown:
        raise HandscopeError(
            f"{len(unknown)} of {len(found)} pictures of {told} are of no prompt of the evaluation, {unknown[0]} among "
            "them: add their prompts, name the pictures after prompts, or write a metadata.csv with file_name and "
            "prompt beside them."
        )
    missing = [one.path for one in made if not one.path.is_file()]
    if missing:
        raise HandscopeError(f"{len(missing)} pictures that {told} names are not there, {missing[0]} among them.")
    return made


def one_of_each(folder: Path, prompts: Sequence[str]) -> dict[str, Path]:
    """The first picture of every prompt, for what has a picture beside each prompt; one picture alone is for all.

    Raises
    ------
    HandscopeError
        A prompt has none.
    """
    if folder.is_file() and folder.suffix not in (".csv", ".jsonl", ".json"):
        return dict.fromkeys(prompts, folder)
    first: dict[str, Path] = {}
    for one in given_pictures(folder, prompts):
        first.setdefault(one.prompt, one.path)
    lacking = [prompt for prompt in prompts if prompt not in first]
    if lacking:
        raise HandscopeError(f"{folder} has no picture for {len(lacking)} prompts, {lacking[0]!r} among them.")
    return first


def pixels(path: Path) -> NDArray[np.uint8]:
    """A picture upright as RGB on white, uint8 of shape (height, width, 3).

    Raises
    ------
    HandscopeError
        It cannot be read.
    """
    try:
        return np.asarray(opened(path))
    except HandscopeError as error:
        raise HandscopeError(f"The picture {path} cannot be used: {error}.") from error


def state_of(pictures: Sequence[Given]) -> str:
    """A hash of which pictures there are, by name, size and time: another set of them is another arm."""
    states = [(str(one.path), one.prompt, one.number, one.path.stat().st_size, one.path.stat().st_mtime_ns)
              for one in pictures]  # fmt: skip
    return sha256(repr(states).encode())


def slug(text: str) -> str:
    """A prompt as a file is named after it.

    >>> slug("A cat, on a mat")
    'a_cat_on_a_mat'
    """
    return re.sub(r"[\W_]+", "_", text.lower()).strip("_")


def _by_name(name: str, by_id: dict[str, str], by_slug: dict[str, str]) -> str | None:
    path = Path(name)
    if found := re.match(r"([0-9a-f]{8})(?![0-9a-f])", path.stem):
        return by_id.get(found[1])
    for part in (path.stem, path.parent.name):
        named = slug(part)
        fits = [known for known in by_slug if known and re.fullmatch(rf"{re.escape(known)}(_.*)?", named)]
        if fits:
            return by_slug[max(fits, key=len)]
    return None


def _number(source: Source, otherwise: int) -> int:
    said = source.columns.get("seed")
    if isinstance(said, int | str) and str(said).isdecimal():
        return int(said)
    digits = re.search(r"(\d{1,9})$", Path(source.name).stem)
    return int(digits[1]) if digits else otherwise


def _family_beside(told: Path) -> str:
    """The family of the run whose samples a table tells of; "" where it is no run's."""
    settings = told.parent.parent / "run.yaml"
    if told.name != "metadata.jsonl" or not settings.is_file():
        return ""
    return str(Run(settings.parent).settings.get("provenance", {}).get("family", ""))
