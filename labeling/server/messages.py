"""What the labelling page and its server say to each other, as JSON."""

import base64
import binascii
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

from ..database.annotation import VERDICTS
from ..database.label_records import RATINGS
from ..names import LONGEST, annotator_name
from ..subject import Subject

Mode = Literal["paint", "rate", "review"]
Painting = Literal["paint", "review"]
Kind = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*(:(local|global))?$", max_length=80)]
Verdict = Annotated[str, Field(pattern=f"^({'|'.join(map(re.escape, VERDICTS))})$")]


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("expected a grid as base64")
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise ValueError("expected base64") from error


def _rating(value: float) -> float:
    if value not in RATINGS:
        raise ValueError("expected 0, 0.5 or 1")
    return value


_Base64 = Annotated[str, Field(json_schema_extra={"format": "byte"})]
Given = Annotated[bytes, BeforeValidator(_decoded, json_schema_input_type=_Base64)]
Grid = Annotated[bytes, PlainSerializer(lambda grid: base64.b64encode(grid).decode(), return_type=_Base64)]
"""A grid in an answer: base64 of its bytes, row after row."""
Name = Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(annotator_name)]
Uid = Annotated[str, Field(pattern="^[A-Za-z0-9_-]{8,64}$", max_length=64)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", max_length=64)]
Revision = Annotated[int, Field(ge=1, le=2**63 - 1)]
Seconds = Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)]
Instance = Annotated[str, Field(pattern="^([1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])$")]
Faults = dict[Instance, list[Kind]]


class Asked(BaseModel):
    """What a page sends: nothing of another type is taken for what was meant, and nothing unknown is passed over."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Who(Asked):
    name: Name


class Write(Asked):
    """What every write says: its own name, so that a repeated one is known, and who made it."""

    uid: Uid
    annotator: Name


class Stroke(Write):
    """A state of a sample, made on the state `base`."""

    image_sha256: Sha256
    base: Revision | None
    labels: Given
    instances: Given
    faults: Faults
    verdict: Verdict | None
    done: bool
    seconds: Seconds | None


class Rating(Write):
    """How good a whole picture is; `withdrawn` takes such a rating back."""

    image_sha256: Sha256
    value: Annotated[
        float, Field(allow_inf_nan=False, json_schema_extra={"enum": list(RATINGS)}), AfterValidator(_rating)
    ]
    seconds: Seconds | None
    withdrawn: bool = False


class Class(BaseModel):
    value: int
    name: str
    key: str


class OrderSaid(BaseModel):
    id: int
    method: str
    seed: int
    n: int


class KindSaid(BaseModel):
    name: str
    scope: str
    word: str
    meaning: str
    picture: str


class SubjectSaid(BaseModel):
    """The words of the page, and the kinds of fault."""

    noun: str
    one: str
    classes: list[Class]
    verdicts: dict[str, str]
    kinds: list[KindSaid]
    question: str
    levels: list[str]
    guide: list[str]

    @classmethod
    def of(cls, subject: Subject) -> "SubjectSaid":
        """What a page needs of a subject."""
        words = subject.classes
        named = ((1, words.outside, "1"), (2, words.good, "2"), (3, words.bad, "3"), (4, words.unsure, "4"))
        return cls(
            noun=subject.noun,
            one=subject.one,
            classes=[Class(value=value, name=name, key=key) for value, name, key in named],
            verdicts=dict(subject.verdicts),
            kinds=[
                KindSaid(
                    name=name, scope=one.scope, word=subject.word(name), meaning=one.meaning, picture=one.picture
                )
                for name, one in subject.kinds.items()
            ],
            question=subject.rating.question,
            levels=subject.rating.levels,
            guide=subject.guide,
        )


class SessionSaid(BaseModel):
    run: str
    run_id: str
    revision_of_api: int
    annotators: list[str]
    annotator: str | None
    subject: SubjectSaid
    modes: list[str]
    order: OrderSaid


class Queued(BaseModel):
    sample: str
    done: bool


class Answer(BaseModel):
    """What is read of an annotator's: `annotator` says whose, since the cookie may be of another name by now."""

    annotator: str


class Queue(Answer):
    mode: Mode
    items: list[Queued]


class Painted(BaseModel):
    labels: Grid
    instances: Grid
    faults: dict[str, list[str]]
    verdict: str | None
    done: bool
    seconds: float | None


class Other(Painted):
    author: str


class Sample(Painted, Answer):
    sample: str
    prompt: str | None
    height: int
    width: int
    rows: int
    columns: int
    image: str
    image_sha256: str
    revision: int | None
    rating: float | None
    others: list[Other] | None


class Suggested(BaseModel):
    source: str
    labels: Grid
    instances: Grid
    map: Grid | None
    score: float | None


class Region(BaseModel):
    """What a click suggests: 1 where a token belongs to it."""

    tokens: Grid


class SuggestionsSaid(BaseModel):
    items: list[Suggested]
    absent: dict[str, str]


class Written(BaseModel):
    revision: int


class Past(BaseModel):
    revision: int
    made: str
    author: str
    done: bool
    verdict: str | None
    kinds: list[str]


class History(Answer):
    items: list[Past]


class Earlier(Painted, Answer):
    revision: int


class Done(BaseModel):
    name: str
    done: int


class OnDay(Done):
    day: str


class Said(BaseModel):
    author: str
    verdict: str | None
    kinds: list[str]
    done: bool


class Seen(BaseModel):
    """A picture among all of them."""

    sample: str
    image_sha256: str
    prompt: str
    state: Literal["open", "draft", "done"]
    said: list[Said]
    automatic: bool
    disputed: bool


class Gallery(Answer):
    items: list[Seen]


class ProgressSaid(BaseModel):
    samples: int
    done: int
    drafts: int
    mine: int
    rated: int
    seconds_per_image: float | None
    annotators: list[Done]
    days: list[OnDay]
    agreement: list[dict[str, Any]]


class Error(BaseModel):
    error: str


class ConflictSaid(Error):
    current: Sample
