"""The painter of the labelling page in a notebook; every stroke is in the run's labels before the next one.

>>> from handscope.labeling.widget import label_widget
>>> label_widget(run, "ada")                                             # doctest: +SKIP

It needs anywidget: ``pip install 'handscope[notebook]'``. A browser's page keeps a journal of its own, and offers
suggestions, fault kinds, ratings and reviews; this has the canvas and the verdict.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import HandscopeError
from ..run.folder import Run
from .database.annotation import Annotation
from .database.labels import Conflict, Labels
from .grid import grid
from .names import annotator_name
from .order import make_order
from .server.messages import SubjectSaid
from .server.painting import PAINTED, check_finished
from .server.pictures import Pictures
from .subject import subject_of

PAGE = Path(__file__).with_name("page")
MODULES = ("grid", "view", "drawing", "surface", "gestures", "painter", "words", "judgement", "notebook")
"""Modules of the page in an order in which each comes after those that it imports."""
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


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
        `sample` is the one on show, `go(sample)` shows another.

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
    annotator_name(annotator)
    order = make_order(run, "random" if samples is None else "given", samples=samples)
    if not order.samples:
        raise HandscopeError("Expected at least one sample to label, found none.")

    class LabelWidget(anywidget.AnyWidget):
        _esm = module()
        _css = (PAGE / "notebook.css").read_text(encoding="utf-8")
        subject = traitlets.Dict().tag(sync=True)
        shown = traitlets.Dict().tag(sync=True)
        image = traitlets.Bytes().tag(sync=True)
        labels = traitlets.Bytes().tag(sync=True)
        instances = traitlets.Bytes().tag(sync=True)

        def __init__(self) -> None:
            super().__init__()
            self._easel = Easel(run, annotator, order.samples)
            self.on_msg(self._heard)
            self.go(order.samples[0])

        @property
        def sample(self) -> str:
            """The sample on show."""
            return self._easel.sample

        def go(self, sample: str) -> None:
            """Show a sample."""
            self._easel.go(sample)
            with self.hold_sync():
                for name, value in self._easel.shown().items():
                    setattr(self, name, value)

        def _heard(self, _: Any, message: dict[str, Any], buffers: list[Any]) -> None:
            if message.get("kind") == "stroke":
                self.send(self._easel.stroke(message, buffers))
            elif message.get("kind") == "step":
                self.go(self._easel.beside(int(message["by"])))

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


class Easel:
    """The sample that somebody paints, and the labels that its strokes go to; knows nothing of widgets."""

    def __init__(self, run: Run, annotator: str, samples: Sequence[str]) -> None:
        self.run, self.annotator, self.samples = run, annotator, list(samples)
        self.store, self.subject = Labels(run.labels_path), subject_of(run)
        self.sample = self.samples[0]
        self._pictures = Pictures(run)
        self._shows = 0
        self._bases: dict[str, int | None] = {}  # what the next stroke on a sample is made on

    def go(self, sample: str) -> None:
        """Turn to a sample; HandscopeError where it is none of these."""
        if sample not in self.samples:
            raise HandscopeError(f"There is no sample {sample!r} among the {len(self.samples)} to label.")
        self.sample = sample
        self._shows += 1

    def beside(self, by: int) -> str:
        """The sample so many places on; the first and the last have none beyond them."""
        place = self.samples.index(self.sample) + by
        return self.samples[min(max(place, 0), len(self.samples) - 1)]

    def shown(self) -> dict[str, Any]:
        """What the widget shows of the sample: its traits by name."""
        row = self.run.metadata()[self.sample]
        rows, columns = grid(self.run, self.sample)
        state = self._state(self.sample)
        empty = np.zeros((rows, columns), np.uint8)
        self._bases[self.sample] = state.revision if state else None
        usable = state is not None and self._fits(state)
        labels, instances = (state.labels, state.instances) if state and usable else (empty, empty)
        return {
            "image": self._pictures.path(self.sample).read_bytes(),
            "labels": labels.tobytes(),
            "instances": instances.tobytes(),
            "subject": SubjectSaid.of(self.subject).model_dump(),
            "shown": {
                "sample": self.sample,
                "prompt": row["prompt"],
                "rows": rows,
                "columns": columns,
                "place": self.samples.index(self.sample) + 1,
                "of": len(self.samples),
                "verdict": (state.verdict or None) if state and usable else None,
                "done": bool(state and usable and state.done),
                "state": "saved" if usable else "nothing painted yet",
                "shows": self._shows,
            },
        }

    def stroke(self, message: dict[str, Any], buffers: Sequence[Any]) -> dict[str, Any]:
        """Append one stroke to the labels, and say what became of it: kind saved or refused, and words."""
        sample = str(message["sample"])
        try:
            shape = grid(self.run, sample)
            labels, instances = (np.frombuffer(bytes(buffer), np.uint8).reshape(shape) for buffer in buffers)
            before = self._state(sample)
            kept = before.faults if before and self._fits(before) else {}
            made = Annotation(
                sample,
                self.run.metadata()[sample]["image_sha256"],
                labels,
                instances,
                message["verdict"] or "",
                author=self.annotator,
                source=PAINTED,
                done=bool(message["done"]),
                faults={one: kinds for one, kinds in kept.items() if (labels[instances == one] == 3).any()},
            )
            check_finished(made, self.subject)
            self._bases[sample] = self.store.append(made, self._bases.get(sample), str(message["uid"]))
        except Conflict as conflict:
            return {"kind": "refused", "said": f"not saved: {conflict} Another sample and back shows the newest."}
        except (HandscopeError, ValueError) as error:
            return {"kind": "refused", "said": f"not saved: {error}"}
        return {"kind": "saved", "said": "saved"}

    def _state(self, sample: str) -> Annotation | None:
        return self.store.newest(sample, self.annotator)

    def _fits(self, state: Annotation) -> bool:
        """Whether a state is of the image and the grid as they are now."""
        same = state.image_sha256 == self.run.metadata()[state.sample]["image_sha256"]
        return same and state.labels.shape == grid(self.run, state.sample)
