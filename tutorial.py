"""The small run that the notebooks share: made once, where it is missing."""

import os
from pathlib import Path

from .progress import bars
from .run.folder import Run
from .stages import PROBE, REPORT
from .study import Study

TUTORIAL = Path(__file__).parent / "datasets" / "tutorial.yaml"


def tutorial_run() -> Run:
    """The run that the environment variable ``HANDSCOPE_RUN`` names; without it ``tutorial/``, made by `TUTORIAL`.

    160 pictures of 8 prompts are drawn, labelled, read and analysed, and nothing is done the second time.

    Raises
    ------
    HandscopeError
        As of `Study.run`.
    """
    named = os.environ.get("HANDSCOPE_RUN")
    if named:
        return Run(named)
    study = Study.from_yaml(TUTORIAL)
    if any(to_do for stage, to_do in study.left() if stage is not REPORT):  # a page that no notebook reads
        with bars() as progress:
            list(study.stages(progress, until=PROBE.name))
    return Run(study.folder)
