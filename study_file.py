"""The YAML file of a study: how it is read, and what each of its values may be."""

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from .errors import HandscopeError
from .models.embedded import ORGANISMS
from .plain_yaml import PlainLoader
from .run.design import noise_owners
from .run.prompts import LAST_SEED, check_prompts, check_seeds, read_prompts

STUDY_PROMPTS = Path(__file__).parent / "datasets" / "study_prompts.txt"


def parse(path: Path) -> dict[Any, Any]:
    """The keys and values of a study file, as they stand there.

    Raises
    ------
    HandscopeError
        The file is missing or not YAML in UTF-8, or a key stands twice.
    """
    try:
        given = yaml.load(path.read_text(encoding="utf-8"), PlainLoader)
    except OSError as error:
        raise HandscopeError(
            f"The study {path} could not be read ({error.strerror}): give the path of a YAML file."
        ) from error
    except UnicodeDecodeError as error:
        raise HandscopeError(
            f"Expected {path} in UTF-8, found byte 0x{error.object[error.start]:02x} "
            f"at position {error.start}: save the file as UTF-8."
        ) from error
    except RecursionError as error:
        raise HandscopeError(f"Expected a study in {path}, found lists within lists without end: mend it.") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
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


def refusal(
    error: ValidationError,
    where: object,
    given: Mapping[Any, Any],
    fields: Mapping[str, FieldInfo],
    what: str = "a study",
) -> str:
    """One or two sentences on what is wrong in a study: an unknown key, else a missing one, else the first value.

    Parameters
    ----------
    where : the file
    given : what stands in it
    fields : of the study, by their names in Python
    what : it is, if it is none
    """
    known = {field.alias or name: field for name, field in fields.items()}
    first = min(error.errors(), key=lambda one: ORDER.get(one["type"], len(ORDER)))
    key = first["loc"][0] if first["loc"] else None
    if first["type"] in ("extra_forbidden", "invalid_key"):
        near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"it may be one of {', '.join(known)}."
        return f"{where} has a key {key!r}, which {what} does not have: {advice}"
    key = str(key)
    if first["type"] == "missing":
        return f"{where} lacks the key {key!r}, which {what} needs: add it."
    reason = first.get("ctx", {}).get("error")
    if isinstance(reason, HandscopeError):
        return f"{where}, key {key!r}: {reason}"
    return f"Expected {key!r} in {where} to be {str(reason or '') or _expected(known[key])}, found {given[key]!r}."


ORDER = {"extra_forbidden": 0, "invalid_key": 1, "missing": 2}


def _expected(field: FieldInfo) -> str:
    """What a field may hold: its choices, or its description; both may stand beside None."""
    kinds = (field.annotation, *get_args(field.annotation))
    choices = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())
    if choices:
        return f"one of {', '.join(choices)}"
    inner = (part for kind in kinds for part in get_args(kind) if isinstance(part, FieldInfo))
    return str(field.description or next(inner).description)


def _folder(value: Any) -> Path:
    return value if isinstance(value, Path) else Path(_text(value))


def _text(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueError("a text, which stands in quotes where it looks like a number")
    if not isinstance(value, str) or not value.strip():
        raise ValueError
    return value


def _near(value: Any, info: ValidationInfo) -> str:
    """A model: one whose name is that of something beside the file is that."""
    near = _beside(info) / _text(value)
    return str(near.resolve()) if info.context and value not in ORGANISMS and near.exists() else value


def _selection(value: Any, info: ValidationInfo) -> str:
    """A choice of tokens; the noun of the study's subject means the subject."""
    from .labeling.subject import DEFAULT, load_subject

    return load_subject(info.data.get("subject") or DEFAULT).selection(_text(value))


def _subject(value: Any, info: ValidationInfo) -> str:
    """A subject that handscope brings, or the path of a file beside the study's."""
    from .labeling.subject import load_subject

    near = _beside(info) / _text(value)
    subject = str(near.resolve()) if near.is_file() else value
    load_subject(subject)  # what is wrong with its file is said before anything is generated
    return subject


def _beside(info: ValidationInfo) -> Path:
    return info.context["beside"] if info.context else Path()


def _pictures(value: Any, info: ValidationInfo) -> Any:
    """A folder alone, or the options of ``handscope import`` with it, by their names there."""
    if value is None:
        return None
    told = {"folder": value} if isinstance(value, str) else value
    if not isinstance(told, dict) or not isinstance(told.get("folder"), str):
        raise ValueError
    path = _beside(info) / told["folder"]
    if not path.exists():
        raise HandscopeError(f"there is no {path}: give a folder of pictures, or a table of them.")
    try:
        return Pictures.model_validate(told | {"folder": str(path)})
    except ValidationError as error:
        raise HandscopeError(refusal(error, "pictures", told, Pictures.model_fields)) from None


def _drawn(value: Any, info: ValidationInfo) -> bool:
    """Whether a key of drawn samples is there; with given pictures it must not be, without them it must."""
    given = info.data.get("pictures") is not None
    if value is None and not given and "pictures" in info.data:
        raise PydanticCustomError("missing", "missing")
    if value is not None and given:
        raise HandscopeError("given pictures have no prompts and seeds to be drawn from: leave it out.")
    return value is not None


def _prompts(value: Any, info: ValidationInfo) -> Any:
    if not _drawn(value, info):
        return ()
    if value == "study":
        return read_prompts(STUDY_PROMPTS)
    if isinstance(value, str):
        return read_prompts(_beside(info) / value)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(prompt, str) for prompt in value):
        raise ValueError
    check_prompts(value)
    return list(value)


def _seeds(value: Any, info: ValidationInfo) -> Any:
    if not _drawn(value, info):
        return ()
    if isinstance(value, str) and (span := re.fullmatch(r"([0-9]{1,10})-([0-9]{1,10})", value)):
        first, last = map(int, span.groups())
        value = {"first": first, "count": last - first + 1}
    if isinstance(value, dict) and set(value) == {"first", "count"} and all(map(_is_whole, value.values())):
        if value["count"] < 1:
            raise ValueError("{first: 0, count: 12} with a count of at least 1")
        check_seeds((value["first"], value["first"] + value["count"] - 1))
        value = range(value["first"], value["first"] + value["count"])
    if not isinstance(value, list | tuple | range) or not value:
        raise ValueError
    check_seeds(value)
    return tuple(value)


def _pairs(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, list | tuple) or not all(isinstance(pair, list | tuple) for pair in value):
        raise ValueError
    pairs = tuple(tuple(_text(prompt) for prompt in pair) for pair in value)
    if "prompts" in info.data:  # else they were refused, which is said first
        noise_owners(info.data["prompts"], info.data.get("design"), pairs)
    return pairs


def prompts_of_pairs(given: Any) -> Any:
    """A study whose prompts are those of its pairs, where it lists pairs and no prompts."""
    pairs = given.get("pairs") if isinstance(given, dict) else None
    if not pairs or not isinstance(pairs, list | tuple) or not all(isinstance(pair, list | tuple) for pair in pairs):
        return given
    return {"prompts": [prompt for pair in pairs for prompt in pair], "design": "paired"} | given


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


Folder = Annotated[Path, BeforeValidator(_folder), Field(description="a text")]
Text = Annotated[str, BeforeValidator(_text), Field(description="a text")]
ModelName = Annotated[str, BeforeValidator(_near), Field(description="a text")]
SubjectName = Annotated[str, BeforeValidator(_subject), Field(description="a text")]
Selection = Annotated[str, BeforeValidator(_selection), Field(description="subject, labelled or all")]
Given = Annotated[
    Any,
    BeforeValidator(_pictures),
    Field(description="a folder of pictures, or {folder: pictures, fit: crop, good: [ok], bad: [broken]}"),
]
Prompts = Annotated[
    tuple[str, ...],
    BeforeValidator(_prompts),
    Field(
        description="a list of prompts, the path of a file with one prompt a line, or study", validate_default=True
    ),
]
Pairs = Annotated[
    tuple[tuple[str, ...], ...],
    BeforeValidator(_pairs),
    Field(description="a list of two prompts each, such as [[a cat, a dog]]", validate_default=True),
]
Seeds = Annotated[
    tuple[int, ...],
    BeforeValidator(_seeds),
    Field(description="a list of whole numbers, {first: 0, count: 12}, or 0-11", validate_default=True),
]
Seed = Annotated[int, Strict(), Field(ge=0, le=LAST_SEED, description=f"a whole number from 0 to {LAST_SEED}")]
FromOne = Annotated[int, Strict(), Field(ge=1, description="a whole number of at least 1")]
FromTwo = Annotated[int, Strict(), Field(ge=2, description="a whole number of at least 2")]
Number = Annotated[float, Strict(), Field(ge=0, description="a number of at least 0", allow_inf_nan=False)]
Blocks = Annotated[
    tuple[Annotated[str, Strict()], ...], Field(description="a list of blocks such as [double.1, single.3]")
]
Names = Annotated[tuple[Text, ...], Field(description="a list of labels or categories such as [broken, torn]")]
Steps = Annotated[tuple[Annotated[int, Strict()], ...], Field(description="a list of steps such as [20, 12, 3]")]


class Pictures(BaseModel):
    """Pictures that the model did not draw: the arguments of `import_pictures` that a study's own keys do not set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Text
    fit: Literal["crop", "pad", "stretch"] | None = None
    noises: FromOne = 1
    seed: Seed = 0
    prompt: str = ""
    group: Text | None = None
    good: Names = ()
    bad: Names = ()
    skip_bad: bool = False
