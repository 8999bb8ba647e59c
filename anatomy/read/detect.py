"""Where the hands of pictures are, and their landmarks: MediaPipe's way, then a search where that finds none.

    hands = detect(images)                      # (n, 3, h, w) in [0, 1], or a list of pictures of any sizes
    undetected = set(range(len(images))) - set(hands.image.tolist())

A picture in which nothing is found stays without a row: undetected is an outcome, to be counted by whoever asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, get_args

import torch
from torch import Tensor

from ...errors import HandscopeError
from .given import as_pictures, single_precision
from .hands import Hands
from .handtrack import find_boxes
from .networks import LANDMARK_INPUT, LandmarkNetwork, PalmNetwork, Size, load_landmarks, load_palm
from .palm import Palms, distinct, find_palms, overlap, whole
from .regions import box_region, crop, hand_region, landmark_region, place, turned
from .toes import like_feet
from .tone import is_grey, toned

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .given import Images

FINDING = 2  # which way of finding hands this is: what was found another way does not mix with it
BATCH = 32  # pictures or crops that go through a network at once
# What the search makes do with at first, since both landmark networks then have to be sure at a second look.
LOW = 0.1  # probability of a palm
GLIMPSE = 0.3  # presence at the first look
CANDIDATES = 4  # palms of a picture that a pass of the search looks into
SAME = 0.4  # hands whose landmarks' boxes overlap by more are one
EIGHT = 8  # turns in which a picture, or a box, is looked at


Search = Literal["thorough", "plain"]
Boxes: TypeAlias = "Tensor | NDArray[Any] | Sequence[Sequence[float]]"
"""Of hands in a picture, (k, 4): x0, y0, x1, y1 in pixels."""


class Detector(Protocol):
    """Any other detector of hands: a picture (3, h, w) in [0, 1] -> boxes (k, 4), x0, y0, x1, y1 in pixels.

    >>> def find(picture):                                                      # doctest: +SKIP
    ...     return model(picture[None])[0].boxes.xyxy
    >>> score(images, detector=find)                                            # doctest: +SKIP
    """

    def __call__(self, image: Tensor) -> Boxes: ...


@single_precision()
def detect(
    images: Images,
    *,
    threshold: float = 0.5,
    networks: Size = "full",
    search: Search = "thorough",
    boxes: Sequence[Boxes | None] | None = None,
    detector: Detector | None = None,
    max_hands: int = 2,
) -> Hands:
    """Find hands and read their landmarks; no gradient (`read` gives one, for the regions found here).

    Parameters
    ----------
    images : n pictures, as `as_pictures` takes them: (n, 3, h, w) in [0, 1], or a list of tensors, arrays, PIL
        pictures or paths
    threshold : least probability of a palm (in the plain pass) and of a hand's presence (always)
    search : "thorough" goes on where the plain pass finds no hand: a lower threshold for palms through both palm
        networks, the boxes of another detector (handtrack.py), turned views, and tiles; each only for pictures that are
        still without a hand. What it finds has to convince both landmark networks when it is looked at a second time.
        "plain" is MediaPipe's own pass and no more. In either a grey picture is shown to the networks in the tones of
        skin, and what looks like a foot is left out
    boxes : for each picture, boxes of hands (k, 4), x0, y0, x1, y1 in pixels, or None; each that holds no hand found
        so far is read itself, in the surest of eight turns
    detector : another source of such boxes, asked for pictures in which nothing was found
    max_hands : most hands a picture; the surest are kept

    Returns
    -------
    Hands, by picture and within it by falling presence

    Raises
    ------
    HandscopeError
        A picture is none, the search or the networks are unknown, or `boxes` are not one entry a picture.
    """
    check_search(search)
    pictures = as_pictures(images)
    if boxes is not None and len(boxes) != len(pictures):
        raise HandscopeError(f"Expected boxes for each of {len(pictures)} pictures (or None), found {len(boxes)}.")
    with torch.no_grad():
        device = str(pictures[0].device)
        shown = [toned(picture) if is_grey(picture) else picture for picture in pictures]
        palm, landmarks = _networks(networks, device)
        candidates = _look(shown, list(range(len(shown))), [palm], _plain, threshold)
        hands = _best(_no_feet(_read_all(shown, *candidates, landmarks, "palm")), threshold, max_hands)
        for step in SEARCH if search == "thorough" else ():
            if not (left := _without(hands, shown)):
                break
            other_palm, other = _networks("full" if networks == "lite" else "lite", device)
            if step.views is None:
                second = [_given(find_boxes([one])[0] if i in left else None, one) for i, one in enumerate(shown)]
                candidates = _surest(shown, *_empty_boxes(second, hands), landmarks)
            else:
                palms = [palm, other_palm] if step.both else [palm]
                candidates = _look(shown, left, palms, step.views, min(LOW, threshold), CANDIDATES)
            sure = max(step.sure, threshold)
            seen = _read_all(shown, *candidates, landmarks, step.name)
            seen = seen.select(seen.presence >= min(GLIMPSE, threshold))
            seen = _no_feet(_read_all(shown, landmark_region(seen.points), seen.image, landmarks, step.name))
            seen = seen.select(seen.presence >= sure)
            agreed = _read_all(shown, seen.region, seen.image, other, step.name).presence >= sure
            hands = Hands.cat([hands, _best(seen.select(agreed), sure, max_hands)])
        given = [_given(of_one, pictures[0]) for of_one in boxes or [None] * len(pictures)]
        if detector is not None:
            for i in _without(hands, shown):
                given[i] = torch.cat([given[i], _given(detector(pictures[i]), pictures[0])])
        turned_best = _read_all(shown, *_surest(shown, *_empty_boxes(given, hands), landmarks), landmarks, "box")
        seen = _read_all(shown, landmark_region(turned_best.points), turned_best.image, landmarks, "box")
        return _best(Hands.cat([hands, seen]), threshold, max_hands)


def check_search(search: str) -> None:
    """HandscopeError for a search that there is not."""
    if search not in get_args(Search):
        raise HandscopeError(f"There is no search {search!r}: choose one of {', '.join(get_args(Search))}.")


def read(
    images: Tensor | Sequence[Tensor], region: Tensor, network: LandmarkNetwork, image: Tensor | None = None
) -> Hands:
    """The landmarks of given regions, differentiable in the pictures and in the regions.

    Parameters
    ----------
    images : float (n, 3, h, w) in [0, 1], or n of (3, h, w)
    region : (m, 4), as in `Hands`
    image : (m,) long: which picture a region is of; region i is of picture i unless given

    Returns
    -------
    Hands of length m, however low their presence; `found_by` is "region"
    """
    image = torch.arange(len(region), device=region.device) if image is None else image
    seen = network(crop(images, region, LANDMARK_INPUT, image))
    points = place(seen.points / LANDMARK_INPUT, region)
    world = turned(seen.world, region[:, 3])
    return Hands(
        image=image,
        region=region,
        points=points,
        world=world,
        presence=seen.presence,
        right=seen.right,
        embedding=seen.embedding,
        found_by=["region"] * len(region),
    )


@cache
def _networks(size: Size, device: str) -> tuple[PalmNetwork, LandmarkNetwork]:
    return load_palm(size).to(device), load_landmarks(size).to(device)


def _without(hands: Hands, pictures: Sequence[Tensor]) -> list[int]:
    return sorted(set(range(len(pictures))) - set(hands.image.tolist()))


def _look(
    pictures: list[Tensor],
    which: list[int],
    networks: Sequence[PalmNetwork],
    views: Callable[[Tensor], Tensor],
    threshold: float,
    most: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Regions (k, 4) of the hands whose palms are seen in views of some pictures, and the pictures' numbers (k,)."""
    jobs = [(i, view) for i in which for view in views(pictures[i])]
    seen: dict[int, list[Palms]] = {i: [] for i in which}
    for start in range(0, len(jobs), BATCH):
        part = jobs[start : start + BATCH]
        shown, seen_in = [pictures[i] for i, _ in part], torch.stack([view for _, view in part])
        for network in networks:
            for (i, _), palms in zip(part, find_palms(shown, network, threshold, seen_in)):
                seen[i].append(palms)
    regions, image = [pictures[0].new_zeros(0, 4)], []
    for i, of_views in seen.items():
        if not of_views:
            continue
        palms = of_views[0] if len(of_views) == 1 else distinct(of_views)
        regions.append(hand_region(palms.boxes, palms.points)[:most])
        image += [i] * len(regions[-1])
    return torch.cat(regions), torch.tensor(image, dtype=torch.long, device=pictures[0].device)


def _read_all(pictures: list[Tensor], region: Tensor, image: Tensor, network: LandmarkNetwork, name: str) -> Hands:
    parts = [
        read(pictures, region[start : start + BATCH], network, image[start : start + BATCH])
        for start in range(0, max(len(region), 1), BATCH)
    ]
    hands = Hands.cat(parts)
    hands.found_by[:] = [name] * len(hands)
    return hands


def _best(hands: Hands, threshold: float, max_hands: int) -> Hands:
    """Those present, each once, the surest of each picture first, by picture."""
    order = hands.presence.argsort(descending=True, stable=True)
    order = order[hands.presence[order] >= threshold]
    extent = torch.cat([hands.points[..., :2].amin(1), hands.points[..., :2].amax(1)], -1)
    kept: dict[int, list[int]] = {}
    for i in order.tolist():
        others = kept.setdefault(int(hands.image[i]), [])
        if len(others) < max_hands and not (others and (overlap(extent[i], extent[others]) > SAME).any()):
            others.append(i)
    chosen = [i for picture in sorted(kept) for i in kept[picture]]
    return hands.select(torch.tensor(chosen, dtype=torch.long, device=hands.image.device))


def _surest(
    pictures: list[Tensor], box: Tensor, image: Tensor, landmarks: LandmarkNetwork
) -> tuple[Tensor, Tensor]:
    """Regions (k, 4) about boxes, each in that of eight turns in which a hand is surest, and their pictures (k,)."""
    turns = _read_all(pictures, _in_turns(box_region(box)), image.repeat_interleave(EIGHT), landmarks, "box")
    surest = turns.presence.reshape(-1, EIGHT).argmax(1) + EIGHT * torch.arange(len(box), device=box.device)
    return turns.region[surest], image


def _no_feet(hands: Hands) -> Hands:
    return hands.select(~like_feet(hands.points, hands.presence))


def _given(boxes: Boxes | None, like: Tensor) -> Tensor:
    """Boxes (k, 4) as somebody gives them, of one picture."""
    numbers = [] if boxes is None or not len(boxes) else boxes
    return torch.as_tensor(numbers, dtype=like.dtype, device=like.device).reshape(-1, 4)


def _empty_boxes(given: list[Tensor], hands: Hands) -> tuple[Tensor, Tensor]:
    """The boxes (k, 4) that hold the middle of no hand found so far, and their pictures' numbers (k,)."""
    centre = hands.points[..., :2].mean(1)
    empty, image = [hands.region[:0]], []
    for i, boxes in enumerate(given):
        for box in boxes:
            inside = (centre >= box[:2]) & (centre <= box[2:])
            if not (inside.all(-1) & (hands.image == i)).any():
                empty.append(box[None])
                image.append(i)
    return torch.cat(empty), torch.tensor(image, dtype=torch.long, device=hands.region.device)


def _in_turns(regions: Tensor) -> Tensor:
    """Each of the regions (k, 4) in eight turns, the first of them its own: (8 k, 4)."""
    turns = torch.arange(EIGHT, dtype=regions.dtype, device=regions.device) * 2 * math.pi / EIGHT
    regions = regions.repeat_interleave(EIGHT, 0)
    return torch.cat([regions[:, :3], (regions[:, 3] + turns.repeat(len(regions) // EIGHT))[:, None]], -1)


def _plain(picture: Tensor) -> Tensor:
    return whole(picture)[None]


def _turned_views(picture: Tensor) -> Tensor:
    return _in_turns(whole(picture)[None])[2::2]  # the palm network sees a hand that is turned by half as much


def _tiles(picture: Tensor) -> Tensor:
    """Squares over the picture that overlap by half: of its shorter side (at least a third of the longer), and of half
    the longer one."""
    height, width = picture.shape[-2:]
    views = []
    longer = max(height, width)
    for size in {max(min(height, width), longer / 3), longer / 2}:
        columns, rows = (max(1, math.ceil(2 * (side - size) / size) + 1) for side in (width, height))
        for y in torch.linspace(min(size, height) / 2, height - min(size, height) / 2, rows).tolist():
            for x in torch.linspace(min(size, width) / 2, width - min(size, width) / 2, columns).tolist():
                views.append([x, y, size, 0.0])
    return picture.new_tensor(views)


@dataclass(frozen=True)
class Step:
    """A step of the search.

    Attributes
    ----------
    name : what a hand found so is said to be found by.
    views : squares of a picture in which its palm is looked for; None asks the other detector for boxes instead.
    both : whether through both palm networks.
    sure : presence that both landmark networks must give it at a second look.
    """

    name: str
    views: Callable[[Tensor], Tensor] | None
    both: bool = False
    sure: float = 0.75


SEARCH = (
    Step("lower threshold", _plain, both=True),
    Step("detector", None, sure=0.7),  # two detectors agree before the landmarks are asked
    Step("rotation", _turned_views),
    Step("tile", _tiles),
)
