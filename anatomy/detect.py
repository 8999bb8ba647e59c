"""Where the hands of pictures are, and their landmarks: MediaPipe's way, then a search where that finds none.

    hands = detect(images)                      # (n, 3, h, w) in [0, 1], or a list of pictures of any sizes
    undetected = set(range(len(images))) - set(hands.image.tolist())

A picture in which nothing is found stays without a row: undetected is an outcome, to be counted by whoever asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, Protocol

import torch
from torch import Tensor

from ..errors import HandscopeError
from .hands import Hands
from .networks import LANDMARK_INPUT, LandmarkNetwork, PalmNetwork, Size, load_landmarks, load_palm
from .palm import find_palms, overlap, whole
from .regions import box_region, crop, hand_region, place, turned

BATCH = 32  # pictures or crops that go through a network at once
LOW = 0.1  # palm probability that the search makes do with; the landmark network's presence still has to agree
SAME = 0.4  # hands whose landmarks' boxes overlap by more are one
TURNS = [math.radians(degrees) for degrees in (45, 90, 135, 180, 225, 270, 315)]


class Detector(Protocol):
    """Any other detector of hands: a picture (3, h, w) in [0, 1] -> boxes (k, 4), x0, y0, x1, y1 in pixels.

    >>> def yolo(image):                                                       # doctest: +SKIP
    ...     return model(image[None])[0].boxes.xyxy
    """

    def __call__(self, image: Tensor) -> Tensor: ...


def detect(
    images: Tensor | Sequence[Tensor],
    *,
    threshold: float = 0.5,
    networks: Size = "full",
    search: Literal["thorough", "plain"] = "thorough",
    boxes: Sequence[Tensor | None] | None = None,
    detector: Detector | None = None,
    max_hands: int = 2,
) -> Hands:
    """Find hands and read their landmarks; no gradient (`read` gives one, for the regions found here).

    Parameters
    ----------
    images : float (n, 3, h, w) in [0, 1], or a list of n pictures (3, h, w) of any sizes
    threshold : least probability of a palm (in the plain pass) and of a hand's presence (always)
    search : "thorough" goes on where the plain pass finds no hand: a lower threshold for palms, turned views, tiles,
        each only for pictures that are still without one. "plain" is MediaPipe's own pass and no more
    boxes : for each picture, boxes of hands (k, 4), x0, y0, x1, y1 in pixels, or None; each that holds no hand found
        so far is read itself
    detector : another source of such boxes, asked for pictures in which nothing was found
    max_hands : most hands a picture; the surest are kept

    Returns
    -------
    Hands, by picture and within it by falling presence

    Raises
    ------
    HandscopeError
        A picture is not a float tensor (3, h, w), or `boxes` are not one entry a picture.
    """
    pictures = _pictures(images)
    if boxes is not None and len(boxes) != len(pictures):
        raise HandscopeError(f"Expected boxes for each of {len(pictures)} pictures (or None), found {len(boxes)}.")
    if not pictures:
        raise HandscopeError("There are no pictures to look at.")
    with torch.no_grad():
        palm, landmarks = _networks(networks, str(pictures[0].device))
        found = read(pictures, pictures[0].new_zeros(0, 4), landmarks, pictures[0].new_zeros(0, dtype=torch.long))
        for name, views, least in PASSES if search == "thorough" else PASSES[:1]:
            left = _without(found, pictures)
            candidates = _look(pictures, left, palm, views, threshold if least is None else min(least, threshold))
            found = Hands.cat([found, _sure(_read_all(pictures, *candidates, landmarks, name), threshold, max_hands)])
        given = [[] if of_one is None else list(of_one) for of_one in boxes or [None] * len(pictures)]
        if detector is not None:
            for i in _without(found, pictures):
                given[i] += list(detector(pictures[i]))
        candidates = _regions_of_boxes(given, found)
        if len(candidates[0]):
            found = Hands.cat([found, _read_all(pictures, *candidates, landmarks, "box")])
        return _sure(found, threshold, max_hands)


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
    return Hands(image, region, points, world, seen.presence, seen.right, seen.embedding, ["region"] * len(region))


@cache
def _networks(size: Size, device: str) -> tuple[PalmNetwork, LandmarkNetwork]:
    return load_palm(size).to(device), load_landmarks(size).to(device)


def _pictures(images: Tensor | Sequence[Tensor]) -> list[Tensor]:
    for i, image in enumerate(images):
        if image.dim() != 3 or len(image) != 3 or not image.is_floating_point() or 0 in image.shape:
            raise HandscopeError(
                f"Expected pictures as float tensors (3, height, width) in [0, 1]; number {i} is "
                f"{str(image.dtype).removeprefix('torch.')} {tuple(image.shape)}."
            )
    return [image.float() for image in images]


def _without(found: Hands, pictures: Sequence[Tensor]) -> list[int]:
    return sorted(set(range(len(pictures))) - set(found.image.tolist()))


def _look(
    pictures: list[Tensor],
    which: list[int],
    network: PalmNetwork,
    views: Callable[[Tensor], Tensor],
    threshold: float,
) -> tuple[Tensor, Tensor]:
    """Regions (k, 4) of the hands whose palms are seen in views of some pictures, and the pictures' numbers (k,)."""
    jobs = [(i, view) for i in which for view in views(pictures[i])]
    regions, image = [pictures[0].new_zeros(0, 4)], []
    for start in range(0, len(jobs), BATCH):
        part = jobs[start : start + BATCH]
        shown = [pictures[i] for i, _ in part]
        for (i, _), palms in zip(part, find_palms(shown, network, threshold, torch.stack([view for _, view in part]))):
            regions.append(hand_region(palms.boxes, palms.points))
            image += [i] * len(palms.scores)
    return torch.cat(regions), torch.tensor(image, dtype=torch.long, device=pictures[0].device)


def _read_all(pictures: list[Tensor], region: Tensor, image: Tensor, network: LandmarkNetwork, name: str) -> Hands:
    parts = [
        read(pictures, region[start : start + BATCH], network, image[start : start + BATCH])
        for start in range(0, max(len(region), 1), BATCH)
    ]
    hands = Hands.cat(parts)
    hands.found_by[:] = [name] * len(hands)
    return hands


def _sure(hands: Hands, threshold: float, max_hands: int) -> Hands:
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


def _regions_of_boxes(given: list[list[Tensor]], found: Hands) -> tuple[Tensor, Tensor]:
    """Regions in all turns of the boxes that hold the middle of no hand found so far."""
    centre = found.points[..., :2].mean(1)
    regions, image = [found.region[:0]], []
    for i, boxes in enumerate(given):
        for box in (one.to(found.region) for one in boxes):
            inside = (centre >= box[:2]) & (centre <= box[2:])
            if not (inside.all(-1) & (found.image == i)).any():
                regions.append(_in_turns(box_region(box[None])[0]))
                image += [i] * len(regions[-1])
    return torch.cat(regions), torch.tensor(image, dtype=torch.long, device=found.region.device)


def _in_turns(view: Tensor) -> Tensor:
    turns = view.new_tensor([0.0, *TURNS])
    return torch.cat([view[:3].expand(len(turns), 3), turns[:, None]], -1)


def _plain(picture: Tensor) -> Tensor:
    return whole(picture)[None]


def _turned_views(picture: Tensor) -> Tensor:
    return _in_turns(whole(picture))[1:]


def _tiles(picture: Tensor) -> Tensor:
    """Squares over the picture that overlap by half: of its shorter side, of half and of a third of the longer one."""
    height, width = picture.shape[-2:]
    views = []
    for size in (min(height, width), max(height, width) / 2, max(height, width) / 3):
        columns, rows = (max(1, math.ceil(2 * (side - size) / size) + 1) for side in (width, height))
        for y in torch.linspace(min(size, height) / 2, height - min(size, height) / 2, rows).tolist():
            for x in torch.linspace(min(size, width) / 2, width - min(size, width) / 2, columns).tolist():
                views.append([x, y, size, 0.0])
    return picture.new_tensor(views)


# The name that a hand found so bears, the views of a picture, and the least probability of a palm if not the caller's.
PASSES: tuple[tuple[str, Callable[[Tensor], Tensor], float | None], ...] = (
    ("palm", _plain, None),
    ("lower threshold", _plain, LOW),
    ("rotation", _turned_views, LOW),
    ("tile", _tiles, LOW),
)
