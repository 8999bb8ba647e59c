"""``handscope label``: which tokens show what is being studied, and whether it is well made."""

import argparse
import os
import sys
import tempfile
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..progress import Progress
from ..stages import LABEL
from .options import at_least, names, seed
from .verb import add_stage, open_run, perform, say

if TYPE_CHECKING:
    from ..labeling.server.server import Place

PORT = 8750  # the same every day, so that a browser finds what it kept for the address


def add(verbs: Any) -> None:
    """Add ``label``."""
    verb = add_stage(verbs, LABEL, _label)
    verb.add_argument(
        "--auto",
        action="store_true",
        help="no page: tokens from the silhouette; verdicts from shipped labels, else from the subject's judge",
    )
    page = verb.add_argument_group("the page")
    page.add_argument(
        "--host", default="127.0.0.1", help="the address to listen on (default 127.0.0.1: this machine only)"
    )
    page.add_argument("--port", type=at_least(0), default=PORT, help=f"(default {PORT}; 0 for any that is free)")
    page.add_argument(
        "--order",
        choices=("random", "uncertain"),
        default="random",
        help="random (default): fit for estimates; uncertain: first what would teach the run's probes most",
    )
    page.add_argument("--seed", type=seed, default=0, help="of the order (default 0)")
    page.add_argument("--annotators", type=names, default=[], metavar="LIST", help="names to divide the work among")
    page.add_argument(
        "--double", type=_share, default=0.1, metavar="SHARE", help="of the images that two of them see (default 0.1)"
    )
    page.add_argument("--no-open", action="store_true", help="do not open a browser")


def _label(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    if arguments.auto:
        perform(LABEL, run, {"labels": "auto"}, lambda: LABEL.do()(run, progress=progress))
        return
    from ..labeling.order import make_order
    from ..labeling.server.server import serve
    from ..labeling.server.session import Session
    from ..labeling.subject import subject_of
    from ..labeling.suggestions.suggest import check_sources, suggestions

    order = make_order(run, arguments.order, arguments.seed, arguments.double, arguments.annotators)
    check_sources(subject_of(run).suggestions)
    session = Session(run, order, arguments.annotators, suggestions)

    def ready(place: "Place") -> None:
        say("label", f"{len(run.metadata())} samples in {run.samples_dir}, in {order.method} order")
        if order.note:
            print(f"  Order      {order.note}")
        print(f"  Open       {place.address}")
        print(f"  From afar  {place.tunnel}   and open the same address there")
        print("  The token in the address is valid until the server ends; Ctrl-C ends it, and what is saved stays.")
        if place.open_to_others:
            print(
                f"handscope: listening on {place.host}, which other machines can reach, without encryption: whoever "
                "reads along can label and read this run. An SSH tunnel to 127.0.0.1 is safer.",
                file=sys.stderr,
            )
        sys.stdout.flush()
        if not arguments.no_open and _has_screen():
            webbrowser.open(_door(Path(folder), place.address).as_uri())

    try:
        with tempfile.TemporaryDirectory() as folder:
            serve(session, arguments.host, arguments.port, ready)
    except KeyboardInterrupt:
        print()
        say("label", LABEL.describe(run))


def _door(folder: Path, address: str) -> Path:
    """A page that leads to an address, for this user's eyes only: what a browser is started with, all can read."""
    page = folder / "open.html"
    page.touch(0o600)
    page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}">', encoding="utf-8")
    return page


def _has_screen() -> bool:
    """Whether a browser opened here would be seen by who is typing here."""
    if "SSH_CONNECTION" in os.environ:
        return False
    return sys.platform in ("darwin", "win32") or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 1, found {text!r}")
    return share
