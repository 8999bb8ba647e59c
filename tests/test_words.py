"""What is labelled is data: no room but the organism's, anatomy's and that of claims says what the first subject is."""

import io
import re
import tokenize
from pathlib import Path

import handscope
import pytest

ROOT = Path(handscope.__file__).resolve().parent
OF_HANDS = {"organism", "anatomy", "claims"}
NO_ROOM = {"bench", "build", "datasets", "docs", "notebooks", "runs", "tests"}
WORD = re.compile(r"(?<![a-z])(hand|finger|skin)s?(?![a-z])", re.IGNORECASE)
EVERYWHERE = ("by hand", "By hand", "an open hand", "the hand it draws is wrong")
"""What is made by hand, the prompt that examples draw, and what the project began with."""
ALLOWED = {
    "commands/anatomy.py": None,
    "commands/anatomy_known.py": None,
    "commands/claims.py": None,
    "labeling/subject.py": None,
    "run/record.py": ("hand",),
    "stages.py": ("hand", "hands", "fingers"),
    "report/sections.py": ("hand", "hands"),
    "report/summary.py": ("hand", "hands"),
    "extract/store/joining.py": ("hand",),
    "extract/store/shard.py": ("hand",),
    "labeling/database/label_file.py": ("hands",),
    "labeling/exchange/importing.py": ("hands", "hand"),
    "labeling/server/painting.py": ("hand",),
    "labeling/page/journal.js": ("hands",),
    "labeling/page/gestures.js": ("fingers",),
    "labeling/page/painter.js": ("fingers",),
    "labeling/page/shortcuts.js": ("fingers",),
}
"""Words that a file may say; None for all of it: the verbs about hands and what their stage says, the default subject,
what files and pages of 0.3 called instances, the source of what somebody painted, and fingers on a touch screen."""


def texts(path: Path) -> list[str]:
    """Names, strings and comments of a Python file, names parted where a capital begins; else the whole text."""
    source = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [source]
    kinds = (tokenize.NAME, tokenize.STRING, tokenize.COMMENT, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING))
    found = [token.string for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type in kinds]
    return [re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text) for text in found]


def words(path: Path) -> set[str]:
    """The words of the first subject in a file, but for those that are allowed everywhere."""
    said = set()
    for text in texts(path):
        for phrase in EVERYWHERE:
            text = text.replace(phrase, "")
        said |= {match[0].lower() for match in WORD.finditer(text)}
    return said


def sources() -> list[str]:
    paths = [path for suffix in ("py", "js", "html") for path in ROOT.rglob(f"*.{suffix}")]
    names = [path.relative_to(ROOT) for path in paths]
    kept = [name for name in names if name.parts[0] not in OF_HANDS | NO_ROOM and name.parts[0][0] != "."]
    return sorted(map(str, kept))


@pytest.mark.parametrize("name", sources())
def test_nothing_but_the_subjects_file_says_what_is_labelled(name):
    allowed = ALLOWED.get(name, ())
    if allowed is not None:
        assert words(ROOT / name) <= set(allowed), "Take the word from the subject, or say sample, instance or token."


def test_every_exception_is_needed():
    for name, allowed in ALLOWED.items():
        assert words(ROOT / name) if allowed is None else words(ROOT / name) == set(allowed), name


def test_words_are_found_in_names_strings_and_comments(tmp_path):
    path = tmp_path / "a.py"
    path.write_text("HandTokens = hand_region = 1\nx = f'{x} fingers'  # skin\nhandle = 'beforehand'\nHandscopeError\n")
    assert words(path) == {"hand", "fingers", "skin"}
    path.write_text('handler = "handscope"  # painted by hand, fingerprint, an open hand\n')
    assert words(path) == set()
