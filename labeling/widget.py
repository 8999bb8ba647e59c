"""The painter of the labelling page in a notebook; every stroke is in the run's labels before the next one.

>>> from handscope.labeling.widget import label_widget
>>> label_widget(run, "ada")                                             # doctest: +SKIP

It needs anywidget: ``pip install 'handscope[notebook]'``. Page and notebook speak one protocol, and keep the same
journal in the browser: the kernel stands in the server's place. Suggestions, ratings and reviews are the page's.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError

from ..errors import HandscopeError
from ..run.folder import Run
from .database.annotation import Annotation
from .database.labels import Conflict
from .names import annotator_name
from .order import make_order
from .server import messages as m
from .server.session import Session

PAGE = Path(__file__).with_name("page")
MODULES = (
    *("grid", "view", "drawing", "surface", "gestures", "painter", "words", "judgement"),
    *("api", "vault", "journal", "standing", "saver", "notebook"),
)
"""Modules of the page in an order in which each comes after those that it imports."""
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)
_ADDRESS = re.compile(r"/api/samples/([^/?]+)(/strokes)?\?mode=paint")


def label_widget(run: Run, annotator: str, samples: Sequence[str] | None = None) -> Any:
    """A widget that shows one sample of a run after the other and stores what is painted.

    Parameters
    ----------
    annotator : str
        Who paints; see `names.annotator_name`.
    samples : sequence of str, optional
        Which samples, in this order; by default all, in the random order of seed 0, as the page shows them.

    Returns
    -------
    anywidget.AnyWidget
        `sample` is the one on show, `go(sample)` shows another, `annotation` is what is stored of it. Shown in several
        cells or windows, each begins with what is stored by then.

    Raises
    ------
    HandscopeError
        anywidget is not installed, it is no annotator's name, or there are no such samples.
    """
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise HandscopeError(
            "Painting in a notebook needs anywidget: pip install 'handscope[notebook]', or run `handscope label`."
        ) from error
    desk = Desk(run, annotator, samples)

    class LabelWidget(anywidget.AnyWidget):
        _esm = module()
        _css = (PAGE / "notebook.css").read_text(encoding="utf-8")
        session = traitlets.Dict().tag(sync=True)
        sample = traitlets.Unicode(help="The sample on show.").tag(sync=True)

        def __init__(self) -> None:
            super().__init__(session=desk.describe(), sample=desk.samples[0])
            self.on_msg(self._heard)

        @property
        def annotation(self) -> Annotation | None:
            """What is stored of the sample on show, draft or not; None where nothing."""
            return desk.session.labels.newest(self.sample, annotator)

        def go(self, sample: str) -> None:
            """Show a sample."""
            self.sample = sample

        @traitlets.validate("sample")
        def _known(self, proposal: Any) -> str:
            return desk.known(proposal["value"])

        def _heard(self, _: Any, message: dict[str, Any], buffers: list[Any]) -> None:
            if message.get("kind") != "ask":
                return
            status, said, picture = desk.answer(str(message["path"]), message.get("body"))
            self.send({"kind": "answer", "id": message["id"], "status": status, "said": said}, picture)
            if status == 201:
                self.send({"kind": "written"})

    return LabelWidget()


def module(read: Callable[[str], str] | None = None) -> str:
    """The page's modules as one: without their imports of each other, in an order in which none is missed."""
    read = read or (lambda name: (PAGE / f"{name}.js").read_text(encoding="utf-8"))
    parts: list[str] = []
    for place, name in enumerate(MODULES):
        source = read(name)
        early = set(_IMPORT.findall(source)) - set(MODULES[:place])
        source = _EXPORT.sub("", _IMPORT.sub("", source))
        if early or re.search(r"^(import|export (?!default))", source, re.MULTILINE):
            raise HandscopeError(
                f"{PAGE / name}.js imports what the notebook's module does not have before it ({', '.join(early)}): "
                "install handscope again."
            )
        parts.append(source)
    return "\n".join(parts)


class Desk:
    """The samples that somebody paints, and answers to what the painter asks; knows nothing of widgets.

    Attributes
    ----------
    session : Session
        The run's, as the server of the page has it.
    samples : list of str
    """

    def __init__(self, run: Run, annotator: str, samples: Sequence[str] | None = None) -> None:
        self.annotator = annotator_name(annotator)
        order = make_order(run, "random" if samples is None else "given", samples=samples)
        if not order.samples:
            raise HandscopeError("Expected at least one sample to label, found none.")
        self.session, self.samples = Session(run, order), list(order.samples)

    def describe(self) -> dict[str, Any]:
        """What the painter needs to know before the first picture."""
        said = self.session.describe(self.annotator)
        return {
            "run_id": said["run_id"],
            "annotator": self.annotator,
            "subject": said["subject"].model_dump(),
            "samples": self.samples,
        }

    def known(self, sample: str) -> str:
        """The sample; HandscopeError where it is none of these."""
        if sample not in self.samples:
            raise HandscopeError(f"There is no sample {sample!r} among the {len(self.samples)} to label.")
        return sample

    def answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any], list[bytes]]:
        """The answer to a request as the page makes it: status, JSON, and the picture where a sample was asked for."""
        try:
            return self._answer(path, body)
        except Conflict as conflict:
            sample = _ADDRESS.fullmatch(path)
            current = self._sample(unquote(sample[1])) if sample else None
            return 409, {"error": str(conflict), "current": current}, []
        except ValidationError as error:
            first = error.errors()[0]
            return 422, {"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}."}, []
        except HandscopeError as error:
            return 422, {"error": str(error)}, []
        except OSError as error:
            return 503, {"error": str(error)}, []

    def _answer(self, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any], list[bytes]]:
        asked = _ADDRESS.fullmatch(path)
        if asked is None:
            raise HandscopeError(f"The notebook's painter has no {path}: use the page.")
        sample = self.known(unquote(asked[1]))
        if not asked[2]:
            return 200, self._sample(sample), [self.session.picture(sample, None).read_bytes()]
        revision, new = self.session.write(sample, "paint", m.Stroke.model_validate(body))
        return 201 if new else 200, {"revision": revision}, []

    def _sample(self, sample: str) -> dict[str, Any]:
        return m.Sample(**self.session.sample(sample, self.annotator, "paint")).model_dump(mode="json")
