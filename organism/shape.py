"""The outline of a hand in numbers: parts, digits counted in two ways, widths, blur, slivers and webs."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.signal import find_peaks

from .captions import GESTURES, Caption
from .silhouette import FOREGROUND, opacity, silhouette

RADII = (1.25, 1.5, 1.75, 2.0, 2.3, 2.6, 3.0)  # circles around the palm, in palm radii
ANGLES = 360
FOREARM = ANGLES // 9  # on either side of straight down, where circles around the palm cross the forearm


@dataclass(frozen=True)
class Palm:
    """The largest disc inside a silhouette: where the palm is, in pixels."""

    row: float
    column: float
    radius: float


def find_palm(mask: np.ndarray) -> Palm:
    """The largest inscribed disc above the forearm; a mask with no hand gives a disc of radius 1 in its middle."""
    depth = ndimage.distance_transform_edt(np.pad(mask, ((0, 0), (1, 1))))[:, 1:-1]
    depth[int(mask.shape[0] * 0.85) :] = 0  # the forearm is cut by the lower edge, not bounded by it
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return Palm(float(row), float(column), float(max(depth.max(), 1.0)))


def _profile(alpha: np.ndarray, palm: Palm) -> np.ndarray:
    """Opacity along circles around the palm: (len(RADII), ANGLES), from straight down (the forearm) clockwise."""
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    rows = palm.row + np.multiply.outer(np.array(RADII) * palm.radius, np.cos(angle))
    columns = palm.column - np.multiply.outer(np.array(RADII) * palm.radius, np.sin(angle))
    return ndimage.map_coordinates(alpha, [rows, columns], order=1, mode="constant")


def _arcs(inside: np.ndarray) -> np.ndarray:
    """Lengths, in samples, of the runs of True on a circle that starts in the forearm's direction."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
    return edges[1::2] - edges[::2]


def features(image: np.ndarray, caption: str) -> dict[str, float]:
    """What the judge looks at in one picture.

    Parameters
    ----------
    image : array of shape (height, width, 3), uint8
    caption : a prompt of the organism's family; its gesture says how many digits should be raised.

    Returns
    -------
    dict from feature name to value; lengths are in palm radii and areas in palm areas, so that size does not matter.
    """
    expected = sum(GESTURES[Caption.parse(caption).gesture])
    alpha, mask = opacity(image), silhouette(image)
    palm = find_palm(mask)
    unit = np.pi * palm.radius**2
    parts, n_parts = ndimage.label(mask, structure=np.ones((3, 3)))
    sizes = np.sort(ndimage.sum_labels(mask, parts, np.arange(1, n_parts + 1)))[::-1] if n_parts else np.zeros(1)
    holes, n_holes = ndimage.label(~np.pad(mask, 1, constant_values=False))
    return {
        "area": mask.sum() / unit,
        "palm": palm.radius / len(mask),
        "parts": float((sizes >= 6).sum()),
        "second_part": float(sizes[1] if len(sizes) > 1 else 0) / unit,
        "holes": float(n_holes - 1),
        **_crossings(alpha, palm, expected),
        **_tips(mask, palm, expected),
        **_blur(alpha, mask, palm),
        # Thin slivers and webs: what a small opening removes, and what a small closing fills.
        "slivers": float((mask & ~ndimage.binary_opening(mask, iterations=2)).sum()) / unit,
        "webs": float((ndimage.binary_closing(np.pad(mask, 3), iterations=2)[3:-3, 3:-3] & ~mask).sum()) / unit,
    }


def _crossings(alpha: np.ndarray, palm: Palm, expected: int) -> dict[str, float]:
    """Digits, counted where circles around the palm cross them."""
    out: dict[str, float] = {}
    counts = []
    for radius, ring in zip(RADII, _profile(alpha, palm), strict=True):
        arcs = _arcs(ring[FOREARM:-FOREARM] > FOREGROUND)
        arcs = arcs[arcs >= 3] * (2 * np.pi * radius / ANGLES)
        counts.append(len(arcs))
        out[f"arcs_{radius}"] = len(arcs) - expected
        out[f"arcs_off_{radius}"] = abs(len(arcs) - expected)
        out[f"widest_{radius}"] = float(arcs.max()) if len(arcs) else 0.0
        out[f"narrowest_{radius}"] = float(arcs.min()) if len(arcs) else 0.0
    return out | {"most_arcs": max(counts) - expected, "most_arcs_off": abs(max(counts) - expected)}


def _tips(mask: np.ndarray, palm: Palm, expected: int) -> dict[str, float]:
    """Digits, counted as tips of the outline."""
    reach = _reach(mask, palm)[FOREARM:-FOREARM]
    tips, info = find_peaks(np.concatenate([[0], reach, [0]]), prominence=0.25, distance=6)
    raised = reach[np.clip(tips - 1, 0, len(reach) - 1)]
    long = raised[raised > 1.6]
    return {
        "tips": len(long) - expected,
        "tips_off": abs(len(long) - expected),
        "tip_prominence": float(info["prominences"].min()) if len(tips) else 0.0,
        "shortest_tip": float(long.min()) if len(long) else 0.0,
        "longest_tip": float(long.max()) if len(long) else 0.0,
        "tip_spread": float(long.std()) if len(long) else 0.0,
    }


def _blur(alpha: np.ndarray, mask: np.ndarray, palm: Palm) -> dict[str, float]:
    """Half-transparent pixels along the outline, and how steep it is."""
    outline = mask & ~ndimage.binary_erosion(mask)
    slope = np.hypot(ndimage.sobel(alpha, 0), ndimage.sobel(alpha, 1)) / 4
    length = max(int(outline.sum()), 1)
    return {
        "outline": length / palm.radius,
        "ghost": float(((alpha > 0.15) & (alpha < FOREGROUND)).sum()) / length,
        "steepness": float(slope[outline].mean()) if outline.any() else 0.0,
        "faint_outline": float((slope[outline] < 0.2).mean()) if outline.any() else 1.0,
    }


def _reach(mask: np.ndarray, palm: Palm) -> np.ndarray:
    """How far the hand reaches in each direction from the palm, in palm radii: (ANGLES,), clockwise from below."""
    angle = np.linspace(0, 2 * np.pi, ANGLES, endpoint=False)
    distance = np.arange(0.5, 4.5, 0.1)
    rows = palm.row + np.multiply.outer(distance * palm.radius, np.cos(angle))
    columns = palm.column - np.multiply.outer(distance * palm.radius, np.sin(angle))
    inside = ndimage.map_coordinates(mask.astype(np.float32), [rows, columns], order=1, mode="constant") > 0.5
    return np.where(inside, distance[:, None], 0).max(0)
