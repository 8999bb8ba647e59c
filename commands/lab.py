"""``handscope lab``: the notebooks in JupyterLab, on a run."""

import argparse
import os
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import HandscopeError
from ..files import atomic
from ..progress import Progress
from .options import at_least
from .verb import add_verb, say

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
FOLDER = "handscope_notebooks"
"""Where copies lie that belong to no run, below the current directory."""


def add(verbs: Any) -> None:
    """Add ``lab``."""
    verb = add_verb(verbs, "lab", _lab, "copies of the notebooks in JupyterLab, to edit and run")
    verb.add_argument(
        "run", metavar="RUN", nargs="?", help="the run that they open; without it they make small ones of their own"
    )
    verb.add_argument("--port", type=at_least(0), help="(default: JupyterLab's own choice; 0 for any that is free)")
    verb.add_argument("--no-open", action="store_true", help="do not open a browser")


def _lab(arguments: argparse.Namespace, progress: Progress) -> None:
    if find_spec("jupyterlab") is None:
        raise HandscopeError("JupyterLab is not installed: pip install 'handscope[notebook]'.")
    run = None if arguments.run is None else Path(arguments.run).resolve()
    if run is not None and not run.is_dir():
        raise HandscopeError(
            f"There is no run folder {arguments.run}: check its name, or give none, and the notebooks make small runs."
        )
    folder = Path(FOLDER).resolve() if run is None else run / "notebooks"
    copied, kept = copy_notebooks(folder)
    say("lab", f"{folder}: {copied} notebooks copied, {kept} left as they were; JupyterLab's address has its token")
    if run is not None:
        os.environ["HANDSCOPE_RUN"] = str(run)
    # Root may, as in a container: nothing but this machine reaches the server, and only with the token.
    command = ["jupyterlab", "--allow-root", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={folder}"]
    command += [] if arguments.port is None else [f"--ServerApp.port={arguments.port}"]
    command += ["--no-browser"] if arguments.no_open else []
    # JupyterLab takes the place of this process, so that Ctrl-C is its own to ask about.
    os.execv(sys.executable, [sys.executable, "-m", *command])


def copy_notebooks(folder: Path) -> tuple[int, int]:
    """Copy the notebooks that a folder lacks: those that are there may have been edited, and are left as they are.

    Returns
    -------
    How many were copied, and how many were there.
    """
    shipped = sorted(NOTEBOOKS.glob("*.ipynb"))
    missing = [one for one in shipped if not (folder / one.name).exists()]
    for notebook in missing:
        with atomic(folder / notebook.name) as temporary:
            shutil.copyfile(notebook, temporary)
    return len(missing), len(shipped) - len(missing)
