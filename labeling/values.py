"""Labels of several values: RUN/values.csv, a row a sample."""

import pandas as pd

from ..errors import HandscopeError
from ..files import refuse_unusable
from ..run.folder import Run
from .subject import Values, subject_of

ADVICE = "give its file a key such as values: {of: colour, levels: [red, blue]}, and begin the run with --subject."


def values_of(run: Run) -> Values:
    """What the subject of a run says of its values.

    Raises
    ------
    HandscopeError
        It says nothing.
    """
    subject = subject_of(run)
    if subject.values is None:
        raise HandscopeError(f"The subject {subject.name} of {run.path} has no label of several values: {ADVICE}")
    return subject.values


def read_values(run: Run) -> dict[str, str]:
    """The value of each sample that has one.

    Raises
    ------
    HandscopeError
        There are none, or the file is damaged.
    """
    path = run.values_path
    if not path.exists():
        raise HandscopeError(
            f"There are no values in {path}: handscope labels import {run.path} FILE.csv --values COLUMN takes those "
            "that you have."
        )
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        return dict(zip(table["sample"], table["value"], strict=True))
    except (ValueError, KeyError) as error:
        refuse_unusable(error, path)
        raise HandscopeError(f"{path} is damaged ({error}): remove it, and import the values again.") from error
