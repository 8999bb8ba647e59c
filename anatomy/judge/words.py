"""Evidence in words: what its names' beginnings stand for."""

from collections.abc import Mapping

WORDS = {
    "joints": "joint angles",
    "bend": "how the fingers bend",
    "straight": "how many fingers are straight",
    "picture": "what the picture head sees",
    "spread": "how the fingers spread",
    "ratio": "digit lengths",
    "presence": "how little it looks like a hand to the detector",
    "side": "left or right is in doubt",
    "points": "how the landmarks lie",
    "sil": "silhouette that the skeleton does not explain",
    "digit": "digits that are not drawn where they should be",
    "web": "digits that run together",
    "arcs": "digits counted across the fan of fingers",
    "count": "what the finger counter sees",
    "raised": "another number of raised digits than was asked for",
}


def by_kind(shares: Mapping[str, float]) -> dict[str, float]:
    """Sum shares of log-odds, by evidence's name, over what the names begin with; largest first."""
    sums: dict[str, float] = {}
    for name, share in shares.items():
        kind = name.split("_")[0]
        sums[kind] = sums.get(kind, 0.0) + share
    return dict(sorted(sums.items(), key=lambda pair: -pair[1]))
