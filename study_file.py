"""The YAML file of a study: which keys there are, and what each may hold."""

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from .errors import HandscopeError
from .models.quantise import QUANTISATIONS
from .run.prompts import check_seeds, read_prompts

STUDY_PROMPTS = Path(__file__).parent / "datasets" / "study_prompts.txt"
REQUIRED = ("run", "prompts", "seeds")


def read_settings(path: Path) -> dict[str, Any]:
    """The values of a study file by key, checked and converted; keys that it leaves out are left out here.

    Raises
    ------
    HandscopeError
        The file is missing or not YAML in UTF-8, a key is unknown or missing, or a value does not fit its key.
    """
    given = _parse(path)
    for key in given:
        if key not in _READERS:
            near = difflib.get_close_matches(str(key), _READERS, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"it may be one of {', '.join(_READERS)}."
            raise HandscopeError(f"{path} has a key {key!r}, which a study does not have: {advice}")
    for key in REQUIRED:
        if key not in given:
            raise HandscopeError(f"{path} lacks the key {key!r}, which every study needs: add it.")
    values = {}
    for key, value in given.items():
        try:
            values[key] = _READERS[key](value, path.parent)
        except _Unfit as error:
            raise HandscopeError(f"Expected {key!r} in {path} to be {error}, found {value!r}.") from None
        except HandscopeError as error:
            raise HandscopeError(f"{path}, key {key!r}: {error}") from None
    return values


def _parse(path: Path) -> dict[Any, Any]:
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)  # a safe loader
    except OSError as error:
        raise HandscopeError(
            f"The study {path} could not be read ({error.strerror}): give the path of a YAML file."
        ) from error
    except UnicodeDecodeError as error:
        raise HandscopeError(
            f"Expected {path} in UTF-8, found byte 0x{error.object[error.start]:02x} "
            f"at position {error.start}: save the file as UTF-8."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1} of {path}" if mark else f"{path}"
        problem = getattr(error, "problem", None) or "not YAML"
        raise HandscopeError(
            f"Expected YAML, each key once, found otherwise at {where} ({problem}): mend it there."
        ) from error
    if not isinstance(given, dict):
        found = "nothing" if given is None else type(given).__name__
        raise HandscopeError(f"Expected a study with keys and values in {path}, found {found}: see datasets/demo.yaml.")
    return given


class _OnceLoader(yaml.SafeLoader):
    """A safe loader that refuses a key which stands twice in one mapping, where YAML's own takes the last silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                said = f"the key {key.value!r} stands there a second time"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            seen.add((key.tag, str(key.value)))
        return super().construct_mapping(node, deep)


class _Unfit(Exception):
    """A value does not fit its key; the message says what was expected."""


def _text(value: Any, base: Path) -> str:
    if not isinstance(value, str) or not value.strip():
        raise _Unfit("a text")
    return value


def _folder(value: Any, base: Path) -> Path:
    return Path(_text(value, base))


def _model(value: Any, base: Path) -> str:
    near = base / _text(value, base)
    return str(near.resolve()) if value != "organism" and near.exists() else value


def _prompts(value: Any, base: Path) -> tuple[str, ...]:
    if value == "study":
        return tuple(read_prompts(STUDY_PROMPTS))
    if isinstance(value, str):
        return tuple(read_prompts(base / value))
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item.strip() for item in value):
        raise _Unfit("a list of prompts, the path of a file with one prompt a line, or study")
    return tuple(value)


def _seeds(value: Any, base: Path) -> tuple[int, ...]:
    if isinstance(value, dict) and set(value) == {"first", "count"} and all(map(_is_whole, value.values())):
        if value["count"] < 1:
            raise _Unfit("{first: 0, count: 12} with a count of at least 1")
        check_seeds((value["first"], value["first"] + value["count"] - 1))
        value = range(value["first"], value["first"] + value["count"])
    if not isinstance(value, (list, range)) or not value:
        raise _Unfit("a list of whole numbers, or {first: 0, count: 12}")
    check_seeds(value)
    return tuple(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(low: int) -> "_Reader":
    def read(value: Any, base: Path) -> int:
        if not _is_whole(value) or value < low:
            raise _Unfit(f"a whole number of at least {low}")
        return value

    return read


def _number(value: Any, base: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 0:
        raise _Unfit("a number of at least 0")
    return float(value)


def _one_of(*names: str) -> "_Reader":
    def read(value: Any, base: Path) -> str:
        if value not in names:
            raise _Unfit(f"one of {', '.join(names)}")
        return value

    return read


def _blocks(value: Any, base: Path) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(block, str) for block in value):
        raise _Unfit("a list of blocks such as [double.1, single.3]")
    return tuple(value)


def _steps(value: Any, base: Path) -> tuple[int, ...]:
    if not isinstance(value, list) or not all(map(_is_whole, value)):
        raise _Unfit("a list of steps such as [20, 12, 3]")
    return tuple(value)


_Reader = Callable[[Any, Path], Any]
_READERS: dict[str, _Reader] = {
    "run": _folder,
    "model": _model,
    "revision": _text,
    "device": _text,
    "dtype": _one_of("float32", "bfloat16"),
    "offload": _one_of("model", "sequential"),
    "quantisation": _one_of(*QUANTISATIONS),
    "base": _model,
    "prompts": _prompts,
    "seeds": _seeds,
    "steps": _whole(1),
    "guidance": _number,
    "height": _whole(1),
    "width": _whole(1),
    "batch_size": _whole(1),
    "labels": _one_of("auto", "existing"),
    "blocks": _blocks,
    "read_steps": _steps,
    "tokens": _one_of("hand", "labelled", "all"),
    "stream": _one_of("image", "text"),
    "at": _one_of("output", "input"),
    "compression": _one_of("lossless"),
    "permutations": _whole(1),
    "probe_permutations": _whole(1),
    "folds": _whole(2),
    "seed": _whole(0),
}
