"""What a labelling page asks of a run, without anything of HTTP: queues, samples, strokes, ratings, progress."""

import hashlib
import statistics
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import HandscopeError
from ...run.folder import Run
from ..database.annotation import AUTOMATIC, REVIEW, Annotation
from ..database.labels import Conflict, Labels
from ..grid import token_side, tokens
from ..names import annotator_name
from ..order import Order
from ..subject import subject_of
from ..suggestions.suggestion import Suggestions
from . import messages as m
from .blind import Blind
from .comparing import Comparing
from .overview import overview
from .painting import PAINTED, check_finished, grid_of, shown
from .pictures import Pictures

MODES = ("paint", "rate", "review")


class Missing(HandscopeError):
    """There is no such sample, or no such state of it."""


class Session:
    """One run being labelled, by any number of annotators at once; every method may be called from any thread.

    Parameters
    ----------
    order : Order
        In which order samples are painted, and by whom.
    annotators : sequence of str
        Who was named beforehand; others may come.
    suggest : callable, optional
        The suggestions for a sample of a run, such as `suggestions.suggest.suggestions`; none when left out.
    grow : callable, optional
        From a picture (uint8, height × width × 3), the form (rows, columns) of its grid, a row and a column, the bool
        mask of what a click there suggests; `suggestions.region.region` when left out. A network that segments from
        points goes here.
    """

    def __init__(
        self,
        run: Run,
        order: Order,
        annotators: Sequence[str] = (),
        suggest: Callable[[Run, str], Suggestions] | None = None,
        grow: Callable[..., np.ndarray] | None = None,
    ) -> None:
        self.run, self.order, self.annotators = run, order, tuple(map(annotator_name, annotators))
        self.subject, self.ask, self.grow = subject_of(run), suggest, grow
        self.labels, self.pictures = Labels(run.labels_path), Pictures(run)
        self.comparing = Comparing(run, self.labels)
        where = str(run.path.resolve())
        self.run_id = hashlib.sha256(where.encode()).hexdigest()[:16]
        self.name = run.path.resolve().name
        self.side = token_side(run)
        self.blind = Blind(run, self.labels, self.run_id, order.seed)
        self._one_at_a_time = threading.Lock()
        self.order_id = order.record(self.labels)

    def describe(self, annotator: str | None) -> dict[str, Any]:
        """What a page needs to know before the first picture."""
        known = {state.author for state in self.labels.states()} - {AUTOMATIC}
        return {
            "run": self.name,
            "run_id": self.run_id,
            "revision_of_api": 2,
            "annotators": sorted(known | set(self.annotators)),
            "annotator": annotator,
            "subject": m.SubjectSaid.of(self.subject),
            "modes": list(MODES),
            "order": {
                "id": self.order_id,
                "method": self.order.method,
                "seed": self.order.seed,
                "n": len(self.order.samples),
            },
        }

    def queue(self, annotator: str, mode: str) -> list[dict[str, Any]]:
        """Every sample that an annotator is to see, in order, and whether it is done."""
        rows = self.run.metadata()
        if mode == "rate":
            rated = self.labels.rated(annotator)
            done = {sample for sample, (image, _) in rated.items() if image == _image(rows, sample)}
            return [{"sample": self.blind.name(one), "done": one in done} for one in self.blind.order(annotator)]
        if mode == "review":
            done = {sample for sample, image in self.labels.reviewed() if image == _image(rows, sample)}
            samples: Sequence[str] = self.comparing.fresh().review
        else:
            states = self.labels.states(annotator)
            done = {state.sample for state in states if state.done and state.image_sha256 == _image(rows, state.sample)}
            samples = self._painted_by(annotator, rows)
        return [{"sample": sample, "done": sample in done} for sample in samples if sample in rows]

    def sample(self, name: str, annotator: str, mode: str) -> dict[str, Any]:
        """A sample as its annotator left it; for a rating, nothing but the picture; for a review, the others' too."""
        sample = self.real(name)
        row = self.run.metadata()[sample]
        rows, columns = tokens(row["height"], row["width"], self.side)
        state = None if mode == "rate" else self.labels.newest(sample, annotator, mode == "review")
        said = shown(state, row["image_sha256"], rows, columns)
        rated = self.labels.rated(annotator).get(sample) if mode == "rate" else None
        found = {
            "annotator": annotator,
            "sample": name,
            "prompt": None if mode == "rate" else row["prompt"],
            "height": row["height"],
            "width": row["width"],
            "rows": rows,
            "columns": columns,
            "image": f"/api/samples/{name}/image?sha={row['image_sha256']}",
            "image_sha256": row["image_sha256"],
            "revision": state.revision if state else None,
            **said,
            "rating": rated[1] if rated and rated[0] == row["image_sha256"] else None,
            "others": None,
        }
        if mode == "review":
            found["others"] = [
                {"author": other.author, **shown(other, row["image_sha256"], rows, columns)}
                for other in self.labels.by_author(sample).values()
                if other.author != AUTOMATIC and other.image_sha256 == row["image_sha256"]
            ]
        return found

    def write(self, name: str, mode: str, stroke: m.Stroke) -> tuple[int, bool]:
        """Store one stroke: its revision, and whether it was new.

        Raises
        ------
        Conflict
            It was made on an older state than the newest, or on another picture.
        HandscopeError
            The grids are of another size, or contradict each other or the verdict; or the subject of the run has no
            such kind of fault.
        """
        sample = self.real(name)
        known = self.labels.written(stroke.uid)
        row = self.run.metadata()[sample]
        if known is None and stroke.image_sha256 != row["image_sha256"]:
            raise Conflict(sample, stroke.base, self.labels.newest(sample, stroke.annotator, mode == "review"))
        rows, columns = tokens(row["height"], row["width"], self.side)
        if known is None:
            self.pictures.path(sample)  # nobody judges what cannot be seen
        if stroke.done and stroke.verdict is None:
            raise HandscopeError(f"A finished picture needs a verdict, and {sample} has none: give one.")
        annotation = Annotation(
            sample,
            row["image_sha256"] if known is None else stroke.image_sha256,
            grid_of(sample, "labels", stroke.labels, rows, columns),
            grid_of(sample, "instances", stroke.instances, rows, columns),
            stroke.verdict or "",
            author=stroke.annotator,
            source=REVIEW if mode == "review" else PAINTED,
            done=stroke.done,
            faults={int(instance): tuple(kinds) for instance, kinds in stroke.faults.items() if kinds},
            seconds=stroke.seconds,
        )
        check_finished(annotation, self.subject)
        return self.labels.append(annotation, stroke.base, stroke.uid), known is None

    def history(self, name: str, annotator: str, mode: str) -> list[dict[str, Any]]:
        """The states of a sample, the newest first: an annotator's own, and in a review everyone's."""
        return [
            {
                "revision": state.revision,
                "made": state.made,
                "author": state.author,
                "done": state.done,
                "verdict": state.verdict or None,
                "kinds": list(state.kinds),
            }
            for state in self.labels.history(self.real(name), None if mode == "review" else annotator)
            if mode == "review" or not state.review
        ]

    def earlier(self, name: str, annotator: str, mode: str, revision: int) -> dict[str, Any]:
        """What a state in the history of a sample says, to be written again as a stroke.

        Raises
        ------
        Missing
            The sample has no such state, or it is another annotator's and this is no review.
        HandscopeError
            It was made on another picture.
        """
        sample, review = self.real(name), mode == "review"
        state = self.labels.revision(revision)
        if (
            state is None
            or state.sample != sample
            or not (review or (state.author == annotator and not state.review))
        ):
            raise Missing(f"There is no revision {revision} of {name} that you could go back to: load its history.")
        if state.image_sha256 != self.run.metadata()[sample]["image_sha256"]:
            raise HandscopeError(f"Revision {revision} of {name} was made on another picture: label it again.")
        return shown(state, state.image_sha256, *state.labels.shape)

    def rate(self, name: str, rating: m.Rating) -> None:
        """Store a rating of a whole picture; HandscopeError where it cannot be shown, or is another one by now."""
        sample = self.real(name)
        if rating.image_sha256 != self.run.metadata()[sample]["image_sha256"]:
            raise HandscopeError(f"The picture of {name} was generated anew since: load it again and rate it.")
        self.pictures.path(sample)  # nobody rates what cannot be seen
        self.labels.rate(
            sample,
            rating.image_sha256,
            rating.annotator,
            rating.value,
            rating.seconds,
            rating.uid,
            rating.withdrawn,
        )

    def progress(self, annotator: str | None) -> dict[str, Any]:
        """How far everybody is."""
        rows = self.run.metadata()
        states = [
            state
            for state in self.labels.states()
            if state.author != AUTOMATIC and state.image_sha256 == _image(rows, state.sample)
        ]
        finished = Counter(state.author for state in states if state.done)
        mine = [state for state in states if state.author == annotator]
        seconds = [state.seconds for state in mine if state.done and state.seconds is not None]
        names = dict.fromkeys([*self.annotators, *sorted({state.author for state in states})])
        return {
            "samples": len(rows),
            "done": len({state.sample for state in states if state.done}),
            "drafts": sum(not state.done for state in mine),
            "mine": finished[annotator] if annotator else 0,
            "rated": len(self.labels.rated(annotator)) if annotator else 0,
            "seconds_per_image": statistics.median(seconds) if seconds else None,
            "annotators": [{"name": name, "done": finished[name]} for name in names],
            "days": [{"day": day, "name": name, "done": done} for day, name, done in self.labels.days()],
            "agreement": self.comparing.last().agreement,
        }

    def gallery(self, annotator: str, mode: str) -> list[dict[str, Any]]:
        """Every sample of a queue with what was said of it: see `overview`. In a review, of the whole run."""
        rows, review = self.run.metadata(), mode == "review"
        samples = list(self.order.samples) if review else self._painted_by(annotator, rows)
        disputed = self.comparing.fresh().review if review else None
        return overview(self.labels, [one for one in samples if one in rows], rows, annotator, disputed)

    def thumbnail(self, name: str) -> bytes:
        """A small picture of a sample."""
        return self.pictures.thumbnail(self.real(name))

    def picture(self, name: str, sha: str | None) -> Path:
        """The file of a sample's picture; Missing where `sha` is not its hash any more."""
        sample = self.real(name)
        if sha not in (None, self.run.metadata()[sample]["image_sha256"]):
            raise Missing(f"The picture of {name} was generated anew since: load the sample again.")
        return self.pictures.path(sample)

    def suggest(self, name: str) -> Suggestions:
        """What could be suggested for a sample, and why other sources have nothing; one sample at a time."""
        sample = self.real(name)
        if self.ask is None:
            return Suggestions()
        with self._one_at_a_time:
            return self.ask(self.run, sample)

    def grown(self, name: str, row: int, column: int) -> np.ndarray:
        """What a click on a token of a sample suggests: bool, of the form of the grid.

        Raises
        ------
        HandscopeError
            The grid has no such token, or what grows the region gave no mask of the grid.
        """
        sample = self.real(name)
        said = self.run.metadata()[sample]
        shape = tokens(said["height"], said["width"], self.side)
        if not (0 <= row < shape[0] and 0 <= column < shape[1]):
            raise HandscopeError(f"Expected a token of {shape[0]} by {shape[1]}, found row {row}, column {column}.")
        from ..suggestions.region import region  # scipy, for which nobody who opens the page should wait

        with self._one_at_a_time:
            found = np.asarray((self.grow or region)(self.run.image(sample), shape, row, column))
        if found.shape != shape:
            raise HandscopeError(f"Expected a mask of {shape[0]} by {shape[1]} tokens, found {found.shape}.")
        return found.astype(bool)

    def real(self, name: str) -> str:
        """The sample of a name in a URL, which may be the opaque one of a rating; Missing where there is none."""
        sample = name if name in self.run.metadata() else self.blind.sample(name)
        if sample is None:
            raise Missing(f"There is no sample of this name in {self.name}: load the queue again.")
        return sample

    def _painted_by(self, annotator: str, rows: Mapping[str, Any]) -> list[str]:
        """An annotator's share of the order; for one without a share the whole, and behind it what is new since."""
        if annotator in self.annotators:
            return self.order.queue(annotator)
        known = set(self.order.samples)
        return [*self.order.samples, *(sample for sample in rows if sample not in known)]


def _image(rows: Mapping[str, Any], sample: str) -> str | None:
    return rows[sample]["image_sha256"] if sample in rows else None
