"""Everything that is read of the hands of a batch of pictures, before anything is judged.

    read = examine(images)           # find hands, read their joints, count their fingers, gather evidence
    verdicts = judge(read, "paper")  # scoring.py; any method, from the same reading
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import HandscopeError
from ..read.detect import Boxes, Detector, Search, detect
from ..read.given import as_pictures, single_precision
from ..read.hands import TENSORS, Hands
from ..read.networks import Size
from ..read.regions import crop
from .angles import joint_angles, side
from .count import Count, count_evidence, count_fingers, count_region, digits
from .evidence import evidence
from .picture import picture_evidence
from .ratios import digit_ratios

if TYPE_CHECKING:
    from ..read.given import Images

CROP = 96  # pixels of the crop that fingers are counted in
DIGITS = 5  # that a hand can raise
GEOMETRY = {"region": (4,), "points": (21, 3), "world": (21, 3), "presence": (), "right": ()}


@dataclass(frozen=True, eq=False)
class Examined:
    """What was read of m hands of n pictures; a picture without a hand has no row.

    Attributes
    ----------
    pictures : n.
    hands : where they are, of length m.
    angles : (m, 15) degrees of flexion, in the order of `skeleton.JOINTS`. ratios : (m, 5) digit lengths.
    count : (m,) long, digits in the picture (4 for fewer than five, 6 for more), -1 unknown. sure : (m,), its
        probability.
    evidence : name to (m,) float32, finite, what `calibrated` weighs.
    """

    pictures: int
    hands: Hands
    angles: Tensor
    ratios: Tensor
    count: Tensor
    sure: Tensor
    evidence: dict[str, Tensor]

    @property
    def undetected(self) -> list[int]:
        """Pictures in which no hand was found."""
        return sorted(set(range(self.pictures)) - set(self.hands.image.tolist()))

    def matrix(self, names: Sequence[str]) -> Tensor:
        """Columns of evidence, float64 of shape (m, n_names); HandscopeError where one is not gathered any more."""
        if not len(self.hands):  # records of no hands do not say what was gathered
            return torch.zeros(0, len(names), dtype=torch.float64)
        unknown = [name for name in names if name not in self.evidence]
        if unknown:
            raise HandscopeError(
                f"The calibration weighs evidence that this version does not gather ({', '.join(unknown[:3])}): fit it "
                "again with handscope anatomy calibrate."
            )
        columns = [self.evidence[name].double() for name in names]
        return torch.stack(columns, 1) if columns else torch.zeros(len(self.hands), 0, dtype=torch.float64)

    def records(self) -> list[dict[str, Any]]:
        """One JSON object a hand, from which `of_records` makes the same again to six digits."""
        rows = []
        for i in range(len(self.hands)):
            row: dict[str, Any] = {name: _short(getattr(self.hands, name)[i]) for name in GEOMETRY}
            row |= {"found_by": self.hands.found_by[i], "count": int(self.count[i]), "sure": _short(self.sure[i])}
            row |= {"angles": _short(self.angles[i]), "ratios": _short(self.ratios[i])}
            row["evidence"] = {name: _short(values[i]) for name, values in self.evidence.items()}
            rows.append(row)
        return rows

    @classmethod
    def of_records(cls, pictures: Sequence[Sequence[Mapping[str, Any]]]) -> Examined:
        """From the records of the hands of each of n pictures."""
        image = torch.tensor([i for i, rows in enumerate(pictures) for _ in rows], dtype=torch.long)
        rows = [row for of_one in pictures for row in of_one]

        def column(name: str, shape: tuple[int, ...] = ()) -> Tensor:
            return torch.tensor([row[name] for row in rows], dtype=torch.float32).reshape(len(rows), *shape)

        tensors = {name: column(name, shape) for name, shape in GEOMETRY.items()}
        names = list(rows[0]["evidence"]) if rows else []
        return cls(
            len(pictures),
            Hands(
                image=image,
                **tensors,
                embedding=torch.zeros(len(rows), 0),  # it is large, and no method looks at it
                found_by=[row["found_by"] for row in rows],
            ),
            column("angles", (15,)),
            column("ratios", (5,)),
            column("count").long(),
            column("sure"),
            {name: torch.tensor([row["evidence"][name] for row in rows]) for name in names},
        )


@single_precision()
def examine(
    images: Images,
    *,
    networks: Size = "full",
    search: Search = "thorough",
    boxes: Sequence[Boxes | None] | None = None,
    detector: Detector | None = None,
    max_hands: int = 2,
    raised: Sequence[int | None] | None = None,
) -> Examined:
    """Find the hands of pictures and read everything of them; no gradient.

    Parameters
    ----------
    images : n pictures, as `as_pictures` takes them
    networks, search, boxes, detector, max_hands : as in `detect`
    raised : for each picture how many digits it should show raised, where a prompt says so, or None. A hand that shows
        three fingers is sound, and wrong where four were asked for

    Raises
    ------
    HandscopeError
        A picture is none, the search is unknown, or `raised` is not a number from 0 to 5, or None, for each picture.
    """
    pictures = as_pictures(images)
    _check_raised(raised, len(pictures))
    hands = detect(
        pictures, networks=networks, search=search, boxes=boxes, detector=detector, max_hands=max_hands
    )
    return examine_hands(pictures, hands, raised)


@single_precision()
def examine_hands(images: Images, hands: Hands, raised: Sequence[int | None] | None = None) -> Examined:
    """The same for hands that were found before."""
    images = as_pictures(images)
    _check_raised(raised, len(images))
    with torch.no_grad():
        count = count_fingers(crop(images, count_region(hands.region), CROP, hands.image).cpu())
        values = {**{name: value.cpu() for name, value in evidence(images, hands).items()}, **count_evidence(count)}
        values |= {name: value.cpu() for name, value in picture_evidence(images, hands).items()}
        asked = [None if raised is None else raised[i] for i in hands.image.tolist()]
        values |= raised_evidence(count, values["arcs_most"], asked)
        right = side(hands.world, hands.right)
        return Examined(
            len(images),
            Hands(**{name: getattr(hands, name).cpu() for name in TENSORS}, found_by=hands.found_by),
            joint_angles(hands.world, right).cpu(),
            digit_ratios(hands.world).cpu(),
            digits(count),
            count.relation.amax(1),
            {name: value.float() for name, value in values.items()},
        )


def _check_raised(raised: Sequence[int | None] | None, pictures: int) -> None:
    if raised is None:
        return
    if not isinstance(raised, Sequence) or isinstance(raised, str) or len(raised) != pictures:
        found = len(raised) if isinstance(raised, Sequence) else repr(raised)
        raise HandscopeError(
            f"Expected the number of raised digits of each of {pictures} pictures (or None) as a list, found {found}."
        )
    for number in raised:
        if number is not None and not (isinstance(number, Integral) and 0 <= number <= DIGITS):
            raise HandscopeError(f"A hand raises 0 to {DIGITS} digits, or None where nobody says; found {number!r}.")


def raised_evidence(count: Count, arcs: Tensor, raised: Sequence[int | None]) -> dict[str, Tensor]:
    """How the digits that are seen differ from those that should be raised: name to (m,), 0 where nobody said.

    Parameters
    ----------
    count : of m crops
    arcs : (m,) pieces of silhouette on the circle around the palm that crosses most
    raised : m numbers, or None
    """
    stated = torch.tensor([number is not None for number in raised], dtype=torch.bool)
    asked = torch.tensor([number or 0 for number in raised], dtype=torch.long)
    among = count.probability.gather(1, asked.clamp(0, count.probability.shape[1] - 1)[:, None])[:, 0]
    seen = (count.probability * torch.arange(count.probability.shape[1])).sum(1)
    values = {
        "raised_odds": (1 - among).clamp_min(1e-6).log() - among.clamp_min(1e-6).log(),
        "raised_more": (seen - asked).clamp_min(0),
        "raised_fewer": (asked - seen).clamp_min(0),
        "raised_arcs_more": (arcs - asked).clamp_min(0),
        "raised_arcs_fewer": (asked - arcs).clamp_min(0),
    }
    values = {name: torch.where(stated, value, torch.zeros_like(value)) for name, value in values.items()}
    return {**values, "raised_missing": (~stated).float()}


def _short(values: Tensor) -> Any:
    """As JSON numbers of six digits."""
    if values.dim() == 0:
        return float(f"{float(values):.6g}")
    return [_short(value) for value in values]
