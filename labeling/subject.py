"""What is being labelled, as data: its noun, its classes, its kinds of fault, and what a prompt states of it.

A subject is a small YAML file. ``labeling/subjects/hand.yaml`` is the default; a run that was begun with another one
holds a copy of it in ``run.yaml``.

>>> subject = load_subject("hand")
>>> subject.plural, subject.scopes(["fused", "count:local"])
('hands', {'local'})
"""

import base64
import os
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from ..brief import brief
from ..errors import HandscopeError
from ..files import refuse_unusable
from ..plain_yaml import PlainLoader

if TYPE_CHECKING:
    from ..run.folder import Run

DEFAULT = "hand"
SELECTIONS = ("subject", "labelled", "all")
"""Which tokens of a sample are chosen: those of an instance, those with a label, or all."""
FOLDER = Path(__file__).with_name("subjects")
PICTURES = {".svg": "svg+xml", ".png": "png", ".webp": "webp", ".jpg": "jpeg"}
"""Forms that the picture of a kind of fault may have, by the ending of its name."""
LARGEST = 50_000
SCOPES = ("local", "global")
"""A fault is seen in a part of an instance, or only in the whole of it."""


def _a_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected a regular expression ({error})") from error
    return pattern


def _one_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"expected a regular expression ({error})") from error
    if groups != 1:
        raise ValueError(f"expected a regular expression with one group, found {groups}")
    return pattern


_STRICT = ConfigDict(extra="forbid")
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern="^[a-z][a-z0-9_]*$")]
Verdict = Annotated[str, Field(pattern=r"^(good\??|bad\??|unsure)$")]


@dataclass(frozen=True, config=_STRICT)
class Kind:
    """A kind of fault: where it is seen unless a label says otherwise, and the word for it (empty: its name).

    `meaning` and `picture` explain it to annotators; a file names a picture that lies beside it, which is read into an
    address of its own (``data:image/png;base64,…``).
    """

    scope: Literal["local", "global"]
    word: str = ""
    meaning: str = ""
    picture: Annotated[str, Field(pattern="^(data:image/[a-z+]+;base64,[A-Za-z0-9+/=]+)?$")] = ""


@dataclass(frozen=True, config=_STRICT)
class Fact:
    """What a prompt states: a regular expression whose one group is the level, and numbers that levels stand for."""

    pattern: Annotated[str, AfterValidator(_one_group)]
    numbers: dict[str, int] = Field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class Classes:
    """What a token is called: of no instance, or of a good, a bad or an unsure one."""

    outside: Text
    good: Text
    bad: Text
    unsure: Text


@dataclass(frozen=True, config=_STRICT)
class Rating:
    """The question that a rating of a whole picture answers, and its levels 0, 0.5 and 1 in words."""

    question: Text
    levels: Annotated[list[Text], Field(min_length=3, max_length=3)]


@dataclass(frozen=True, config=_STRICT)
class Values:
    """A label of several values beside the verdict: what is asked, the values, and whether their order means something.

    ``Values("raised digits", ["0", "1", "2"], ordered=True)``; RUN/values.csv says which a sample has.
    """

    of: Text
    levels: Annotated[list[Text], Field(min_length=2)]
    ordered: bool = False


@dataclass(frozen=True, config=_STRICT)
class Subject:
    """What is being labelled. A file need not say more than `name`, `noun`, `plural` and `kinds`.

    Attributes
    ----------
    name : str
        What a study or a run calls it.
    noun, plural : str
        What one instance is called, and several.
    kinds : dict of Kind by name
        The kinds of fault, in the order in which a page shows them.
    article : str
        What stands before the noun: a or an.
    classes : Classes
        The words for labels of tokens.
    verdicts : dict of str
        The words for the verdicts good, good?, bad?, bad and unsure.
    rating : Rating
    examples : str
        Faults in words, for the beginning of a report.
    facts : dict of Fact by name
        What prompts state. A report shows the rate of bad instances by each.
    asked : str
        A regular expression of prompts that ask for an instance, so that a picture without one lacks it; empty where
        every prompt does.
    suggestions : list of str
        Names of what may suggest a mask: see `labeling.suggestions.suggest`.
    guide : list of str
        What annotators are told before they begin: the rubric, a sentence or two each.
    values : Values or None
        A label of several values, which `handscope values` asks for.
    judge : str or None
        What gives verdicts without a person: ``organism``, or nothing.
    """

    name: Name
    noun: Text
    plural: Text
    kinds: dict[Name, Kind]
    article: Literal["a", "an"]
    classes: Classes
    verdicts: dict[Verdict, Text]
    rating: Rating
    examples: str = ""
    facts: dict[Name, Fact] = Field(default_factory=dict)
    asked: Annotated[str, AfterValidator(_a_pattern)] = ""
    suggestions: list[Name] = Field(default_factory=lambda: ["probe"])
    guide: list[Text] = Field(default_factory=list)
    values: Values | None = None
    judge: Literal["organism"] | None = None

    __repr__ = brief

    @property
    def one(self) -> str:
        """The noun behind its article: ``a hand``."""
        return f"{self.article} {self.noun}"

    @property
    def nouns(self) -> tuple[str, str]:
        """The noun and the plural with a capital, as a sentence begins."""
        return self.noun[0].upper() + self.noun[1:], self.plural[0].upper() + self.plural[1:]

    def selection(self, tokens: str) -> str:
        """The choice of tokens that is meant: one of `SELECTIONS`, or the noun for ``subject``.

        >>> load_subject("hand").selection("hand")
        'subject'
        """
        if tokens == self.noun:
            return "subject"
        if tokens not in SELECTIONS:
            raise HandscopeError(f"Expected tokens to be one of {', '.join(SELECTIONS)}, found {tokens!r}.")
        return tokens

    def word(self, kind: str) -> str:
        """The word for a kind of fault."""
        return self.kinds[kind].word or kind

    def fault_word(self, fault: str) -> str:
        """A fault in words: its kind's word, and its scope where it has one (``fused:global``)."""
        kind, colon, scope = fault.partition(":")
        return f"{self.word(kind) if kind in self.kinds else kind}{colon}{scope}"

    def scopes(self, kinds: Iterable[str]) -> set[str]:
        """Where the faults of an instance are seen: any of local and global; none where no kind is given.

        Raises
        ------
        HandscopeError
            The subject does not have such a kind.
        """
        given = list(kinds)
        self.check_kinds(given, "labels")
        return {scope or self.kinds[name].scope for name, _, scope in (kind.partition(":") for kind in given)}

    def check_kinds(self, kinds: Iterable[str], where: object) -> None:
        """Refuse kinds of fault that the subject does not have; `where` names the labels in the message."""
        unknown = sorted({kind for kind in kinds if kind.partition(":")[0] not in self.kinds})
        if unknown:
            raise HandscopeError(
                f"Expected the kinds of {where} to be among {', '.join(self.kinds)}, which the subject {self.name} "
                f"has, alone or with :local or :global behind; found {', '.join(unknown)}."
            )

    def asks(self, prompt: str) -> bool:
        """Whether a prompt asks for an instance.

        >>> [load_subject("hand").asks(prompt) for prompt in ("a left hand, palm view", "a potter at work")]
        [True, False]
        """
        return re.search(self.asked, prompt, re.IGNORECASE) is not None

    def stated(self, prompt: str) -> dict[str, str]:
        """What a prompt states, by the name of the fact; facts that it is silent on are left out.

        >>> load_subject("hand").stated("a left hand, palm view, four fingers raised")
        {'gesture': 'four', 'side': 'left', 'view': 'palm'}
        """
        found = {name: re.search(fact.pattern, prompt) for name, fact in self.facts.items()}
        return {name: match[1] for name, match in found.items() if match}

    def numbers(self, prompt: str) -> dict[str, int]:
        """The numbers among what a prompt states: ``{'gesture': 4}``."""
        stated = {name: self.facts[name].numbers.get(level) for name, level in self.stated(prompt).items()}
        return {name: number for name, number in stated.items() if number is not None}


def load_subject(name_or_path: str | os.PathLike[str]) -> Subject:
    """A subject that handscope brings, by its name, or any other, by the path of its YAML file.

    Raises
    ------
    HandscopeError
        There is no such subject, or its file is damaged or lacks something.
    """
    brought = FOLDER / f"{name_or_path}.yaml"
    path = brought if re.fullmatch(r"\w+", str(name_or_path)) and brought.exists() else Path(name_or_path)
    try:
        said = yaml.load(path.read_text(encoding="utf-8"), PlainLoader)
    except OSError as error:
        refuse_unusable(error, path)
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise HandscopeError(
            f"There is no subject {str(name_or_path)!r}: expected the path of a YAML file, which handscope init "
            f"--subject NAME.yaml begins, or one of {names}."
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise HandscopeError(f"The subject {path} is not YAML in UTF-8 ({problem}): mend it there.") from error
    return parse_subject(_with_pictures(said, path), path)


def _with_pictures(said: Any, path: Path) -> Any:
    """What a subject's file says, with the pictures that it names beside it in their place."""
    kinds = said.get("kinds") if isinstance(said, Mapping) else None
    if not isinstance(kinds, Mapping):
        return said
    read = {
        name: {**kind, "picture": _picture(path, str(kind["picture"]))}
        if isinstance(kind, Mapping) and kind.get("picture") and not str(kind["picture"]).startswith("data:")
        else kind
        for name, kind in kinds.items()
    }
    return {**said, "kinds": read}


def _picture(subject: Path, name: str) -> str:
    path, kind = subject.parent / name, PICTURES.get(Path(name).suffix.lower())
    advice = f"give one of {', '.join(PICTURES)} in the folder of the subject, of at most {LARGEST // 1000} kB."
    if kind is None or not path.resolve().is_relative_to(subject.parent.resolve()):
        raise HandscopeError(f"The subject {subject} names a picture {name}, which it cannot have: {advice}")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HandscopeError(
            f"The picture {path} of the subject {subject} could not be read ({error.strerror}): {advice}"
        ) from error
    if len(content) > LARGEST:
        raise HandscopeError(f"The picture {path} has {len(content):,} bytes: {advice}")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def parse_subject(said: Any, where: object) -> Subject:
    """A subject from what its file says; `where` names the file in the message of a HandscopeError."""
    if not isinstance(said, Mapping):
        raise HandscopeError(f"Expected a subject with name, noun, plural and kinds in {where}, found no such keys.")
    noun, verdicts = said.get("noun"), said.get("verdicts", {})
    adjectives = {verdict: verdict for verdict in ("good", "good?", "bad?", "bad", "unsure")}
    if isinstance(verdicts, dict):
        verdicts = adjectives = adjectives | verdicts
    usual: dict[str, Any] = {
        "article": "an" if str(noun)[:1].lower() in "aeiou" else "a",
        "classes": {"outside": f"not {noun}"}
        | {name: f"{adjectives[name]} {noun}" for name in ("good", "bad", "unsure")},
        "rating": {
            "question": f"How good is the {noun}?",
            "levels": ["Clearly wrong", "Nearly right, and something unlikely", "Nothing wrong, or only little"],
        },
    }  # fmt: skip
    try:
        return _SUBJECT.validate_python({**usual, **said, "verdicts": verdicts})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = "it is missing" if first["type"] == "missing" else f"{first['msg']}, found {first['input']!r}"
        raise HandscopeError(f"The subject {where} is not as expected, key {key!r}: {problem}.") from error


@lru_cache(maxsize=1)
def default_subject() -> Subject:
    """The subject of a run that was not begun with another; its file is read once."""
    return load_subject(DEFAULT)


def words_of(subject: Subject | None) -> Subject:
    """The subject, or the default one where none is given."""
    return default_subject() if subject is None else subject


def subject_of(run: "Run") -> Subject:
    """The subject of a run: that of the section ``subject`` of its ``run.yaml``, else the default."""
    return subject_at(run.settings_path)


def subject_at(settings: Path) -> Subject:
    """The subject that a ``run.yaml`` names; the default where there is no such file."""
    if not settings.exists():
        return default_subject()
    state = settings.stat()
    return _subject_at(settings.absolute(), state.st_mtime_ns, state.st_size)


def set_subject(run: "Run", subject: Subject) -> None:
    """Begin a run with a subject: ``run.yaml`` gets a copy, unless it is the default and nothing else was there.

    Words may be changed later. A run with labels keeps its subject.

    Raises
    ------
    HandscopeError
        The run has labels of another subject.
    """
    before = subject_of(run)
    if before == subject:
        return
    if before.name != subject.name and run.labels_path.exists():
        raise HandscopeError(
            f"The labels in {run.path} are of the subject {before.name}, and now it is {subject.name}: one run holds "
            "one subject. Use another run folder."
        )
    run.write_settings({"subject": _SUBJECT.dump_python(subject, mode="json")})


@lru_cache(maxsize=32)
def _subject_at(settings: Path, _changed: int, _size: int) -> Subject:
    from ..run.folder import Run  # which needs pandas; a study with nothing to do reads its subject without it

    said = Run(settings.parent).settings.get("subject")
    return default_subject() if said is None else parse_subject(said, f"of {settings}")


_SUBJECT = TypeAdapter(Subject)
