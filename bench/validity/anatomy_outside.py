"""How good the plausibility score is on pictures from outside: hands of many sources, sound and malformed.

    python bench/validity/anatomy_outside.py FOLDER CSV [--cache DIR] [--changed 12]

CSV has a row a picture: file (from FOLDER), shows (a group, for the table), label (normal, malformed or none),
repository (where it is from; intervals draw whole repositories where a row has at least five) and, optionally, kind:
photograph, generated, edited (a photograph with a fault planted in it) or none. Without that column malformed pictures
whose `shows` begins with "edit" are edited ones, the others generated; sound ones are generated if `shows` is one of
``--generated``, and photographs otherwise.

Sound hands are counted by hand, malformed ones by picture, since the label does not say which hand of a picture it is:
a picture is flagged if any of its hands is, and its badness is that of its worst hand. AUCs compare pictures by their
worst hand, all malformed ones with all sound ones of a kind, and *within a source*: malformed with sound pictures of
one repository only, so that neither scene nor style can help. Five small changes of up to ``--changed`` pictures a
group say how often a verdict turns. What was read is kept in DIR, so that it can be killed and started again.
"""

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from handscope.analysis.statistics.auc import auc
from handscope.analysis.statistics.intervals import bootstrap_auc
from handscope.analysis.statistics.rates import clustered_share, wilson
from handscope.anatomy.judge.calibration import Calibration
from handscope.anatomy.judge.scoring import judge
from handscope.anatomy.judge.stage import Read, examine_files
from handscope.anatomy.read.networks import load_palm
from handscope.anatomy.read.palm import find_palms
from handscope.anatomy.read.pictures import Picture, read_picture
from handscope.files import atomic
from PIL import Image, ImageEnhance

GENERATED = ("cgi", "modern_gen")
KINDS = {"photograph": "photographs", "generated": "generated, sound", "malformed": "generated, malformed"}
KINDS |= {"edited": "photographs with a fault edited in", "none": "no hand"}
ENOUGH = 5  # repositories, or pictures, from which intervals are over them
SOUND = ("photograph", "generated")
TURN = 15.0


def turned(image: Image.Image) -> Image.Image:
    return image.rotate(-TURN, Image.Resampling.BICUBIC, fillcolor=(127, 127, 127))


def compressed(image: Image.Image) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=60)
    return Image.open(file).convert("RGB")


# What is done to a picture, and where a point (x, y) of a picture (width, height) is then.
Change = tuple[Callable[[Image.Image], Image.Image], Callable[[np.ndarray, np.ndarray], np.ndarray]]
CHANGES: dict[str, Change] = {
    "mirrored": (
        lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda at, side: np.array([side[0] - at[0], at[1]]),
    ),
    "JPEG of quality 60": (compressed, lambda at, side: at),
    "70% of its size": (
        lambda image: image.resize((round(0.7 * image.width), round(0.7 * image.height)), Image.Resampling.BICUBIC),
        lambda at, side: 0.7 * at,
    ),
    "turned by 15°": (
        turned,
        lambda at, side: side / 2 + _rotation(TURN) @ (at - side / 2),
    ),
    "a fifth darker": (lambda image: ImageEnhance.Brightness(image).enhance(0.8), lambda at, side: at),
}


def _rotation(degrees: float) -> np.ndarray:
    """Clockwise as seen."""
    sine, cosine = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    return np.array([[cosine, -sine], [sine, cosine]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("csv", type=Path, metavar="CSV")
    parser.add_argument("--cache", type=Path, default=Path("outside"), metavar="DIR")
    parser.add_argument("--changed", type=int, default=12, help="pictures a group that are changed (default 12)")
    parser.add_argument("--generated", nargs="*", default=GENERATED, help="groups of sound pictures that are generated")
    parser.add_argument("--calibration", default="general", help="a file, or one that ships (default general)")
    options = parser.parse_args()
    calibration = Calibration.load(options.calibration)
    torch.set_num_threads(1)
    table = listed(options.folder, options.csv, options.generated)
    read = examine_files(table["path"].tolist(), options.cache / "original", progress=say)
    table = table.set_index("path").loc[read.paths].reset_index()
    table["palm"] = palms(read.paths, options.cache / "palms.json")
    hands = judged(read, calibration).join(table, on="place")
    print_groups(table, hands)
    print_areas(table, hands)
    print_changes(changed(table, hands, options.cache, options.changed, calibration))


def say(what: str, done: int, of: int) -> None:
    print(f"\r{what}: {done} of {of}", end="" if done < of else "\n", flush=True)


def listed(folder: Path, csv: Path, generated: tuple[str, ...]) -> pd.DataFrame:
    """The pictures of the table, with path, kind, bad (of pictures with hands) and what the CSV says."""
    table = pd.read_csv(csv, keep_default_na=False)
    table["path"] = [folder / name for name in table["file"]]
    table["bad"] = table["label"] == "malformed"
    if "kind" not in table:
        made = table["shows"].isin(generated)
        edited = table["shows"].str.startswith("edit")
        table["kind"] = np.select(
            [table["label"] == "none", table["bad"] & edited, table["bad"] | made], ["none", "edited", "generated"],
            "photograph",
        )  # fmt: skip
    table.loc[table["bad"] & (table["kind"] == "generated"), "kind"] = "malformed"
    return table


def judged(read: Read, calibration: Calibration) -> pd.DataFrame:
    """A row a hand: place (of the picture), where it is, the outcome, and badness by every method."""
    scores = judge(read.examined, calibration=calibration)
    hands = read.examined.hands
    rows = pd.DataFrame({"place": hands.image.numpy(), "size": hands.region[:, 2].numpy()})
    rows["x"], rows["y"] = hands.points[..., 0].mean(1).numpy(), hands.points[..., 1].mean(1).numpy()
    rows["outcome"] = [verdict.outcome for verdict in scores.verdicts]
    rows["calibrated"] = [1 - verdict.score for verdict in scores.verdicts]
    rows["presence"] = -hands.presence.numpy()
    for method in ("paper", "any-violation"):
        rows[method] = [1 - verdict.score for verdict in judge(read.examined, method).verdicts]
    return rows


def palms(paths: list[Path], cache: Path) -> list[float]:
    """The probability of the surest palm of each picture: what a detector's confidence alone would say."""
    known = json.loads(cache.read_text()) if cache.exists() else {}
    network = load_palm()
    with torch.no_grad():
        for path in paths:
            if str(path) not in known:
                picture = read_picture(path)
                assert isinstance(picture, Picture)
                scores = find_palms([picture.tensor()], network, 0.01)[0].scores
                known[str(path)] = float(scores.max()) if len(scores) else 0.0
    with atomic(cache) as temporary:
        temporary.write_text(json.dumps(known))
    return [known[str(path)] for path in paths]


def share(flagged: pd.Series, groups: pd.Series) -> str:
    """A share with its interval: over repositories where there are enough to say anything, else Wilson's."""
    n, k = len(flagged), int(flagged.sum())
    if not n:
        return "–"
    if groups.nunique() >= ENOUGH:
        _, low, high = clustered_share(flagged.to_numpy(), groups.to_numpy())
    else:
        low, high = (float(end) for end in wilson(k, n))
    return f"{k / n:.0%} ({low:.0%}–{high:.0%}; {k} of {n})"


def area(badness: pd.Series, bad: pd.Series, groups: pd.Series, within: bool = False) -> str:
    """An AUC with its interval; `within` compares pictures of one repository only."""
    strata = groups.to_numpy() if within else None
    value = float(auc(badness.to_numpy(), bad.to_numpy(), strata))
    if np.isnan(value):
        return "–"
    clusters = groups if groups[bad].nunique() >= ENOUGH else pd.Series(np.arange(len(groups)), groups.index)
    low, high = bootstrap_auc(badness.to_numpy(), bad.to_numpy(), clusters.to_numpy(), strata=strata)
    return f"{value:.2f} ({low:.2f}–{high:.2f})"


def print_groups(table: pd.DataFrame, hands: pd.DataFrame) -> None:
    print("\n| | pictures | repositories | a hand found | hands | implausible | cannot tell |\n" + "|---" * 7 + "|")
    for kind, name in KINDS.items():
        of_kind = table[table["kind"] == kind]
        for group in [None, *sorted(of_kind["shows"].unique())]:
            rows = of_kind if group is None else of_kind[of_kind["shows"] == group]
            if not len(rows):
                continue
            own = hands[hands["place"].isin(rows.index)]
            found = pd.Series(rows.index.isin(own["place"]), rows.index)
            if kind in ("malformed", "edited"):  # by picture: one hand of it is malformed
                worst = own["outcome"].map({"implausible": 2, "cannot tell": 1, "plausible": 0}).groupby(own["place"])
                level, where = worst.max(), rows["repository"]
                flags = [share(level == at, where.loc[level.index]) for at in (2, 1)]
            else:
                flags = [share(own["outcome"] == said, own["repository"]) for said in ("implausible", "cannot tell")]
            title = f"**{name}**" if group is None else group
            print(
                f"| {title} | {len(rows)} | {rows['repository'].nunique()} | {share(found, rows['repository'])} | "
                f"{len(own)} | {' | '.join(flags)} |"
            )


def print_areas(table: pd.DataFrame, hands: pd.DataFrame) -> None:
    """How well badness tells malformed from sound pictures, by their worst hands."""
    methods = ["calibrated", "presence", "paper", "any-violation"]
    worst = hands.groupby("place")[methods].max()
    worst["detector"] = -table.loc[worst.index, "palm"]
    known = worst.join(table[["kind", "bad", "repository", "shows"]])
    names = {"calibrated": "**this score**", "presence": "presence, MediaPipe's confidence"}
    names["detector"] = "palm detector's confidence"
    print("\n| AUC | n malformed, sound | " + " | ".join(names.get(m, f"`{m}`") for m in [*methods, "detector"]) + " |")
    print("|---" * 7 + "|")
    for kind, within in (("malformed", False), ("malformed", True), ("edited", False), ("edited", True)):
        for against in ("photograph", "generated") if not within else (None,):
            chosen = known[(known["kind"] == kind) | known["kind"].isin(SOUND if against is None else (against,))]
            if within:  # sources with both
                both = set(chosen[chosen["bad"]]["repository"]) & set(chosen[~chosen["bad"]]["repository"])
                chosen = chosen[chosen["repository"].isin(both)]
            cells = [area(chosen[m], chosen["bad"], chosen["repository"], within) if chosen["bad"].any() else "–"
                     for m in [*methods, "detector"]]  # fmt: skip
            what = "sound ones of the same source" if within else KINDS[str(against)]
            n = f"{int(chosen['bad'].sum())}, {int((~chosen['bad']).sum())}"
            print(f"| {KINDS[kind]} against {what} | {n} | {' | '.join(cells)} |")


def changed(
    table: pd.DataFrame, hands: pd.DataFrame, cache: Path, most: int, calibration: Calibration
) -> pd.DataFrame:
    """A row a hand and change: shows, repository, whether it was found again, verdicts and scores before and after."""
    chosen = [place for _, rows in table[table["kind"] != "none"].groupby("shows") for place in rows.index[:most]]
    chosen = [place for place in chosen if (hands["place"] == place).any()]
    rows = []
    for number, (name, (change, move)) in enumerate(CHANGES.items()):
        folder = cache / f"change_{number}"
        folder.mkdir(parents=True, exist_ok=True)
        paths, sides = [], {}
        for place in chosen:
            picture = read_picture(table.loc[place, "path"])
            assert isinstance(picture, Picture)
            path = folder / (table.loc[place, "file"].replace("/", "_") + ".png")
            sides[place] = np.array(picture.pixels.shape[1::-1])
            if not path.exists():
                with atomic(path) as temporary:
                    change(Image.fromarray(picture.pixels)).save(temporary, "PNG")
            paths.append(path)
        again = judged(examine_files(paths, folder / "read", progress=say), calibration)
        for k, place in enumerate(chosen):
            after = again[again["place"] == k]
            for hand in hands[hands["place"] == place].itertuples():
                at = move(np.array([hand.x, hand.y]), sides[place])
                away = np.hypot(after["x"] - at[0], after["y"] - at[1])
                row = {"change": name, "shows": hand.shows, "file": hand.file, "before": hand.outcome}
                row["score"] = hand.calibrated
                if len(away) and away.min() < hand.size / 4:
                    same = after.loc[away.idxmin()]
                    row |= {"after": same["outcome"], "moved": abs(same["calibrated"] - hand.calibrated)}
                rows.append(row | {"found": "after" in row})
    return pd.DataFrame(rows)


def print_changes(rows: pd.DataFrame) -> None:
    print("\n| change | found again | another verdict | plausible turns implausible, or back | the score moves by "
          "(median, 95th percentile, most) |\n|---|---|---|---|---|")  # fmt: skip
    for name in ["all", *CHANGES]:
        own = rows if name == "all" else rows[rows["change"] == name]
        found = own[own["found"]]
        other = found["before"] != found["after"]
        across = other & (found["before"] != "cannot tell") & (found["after"] != "cannot tell")
        moved = found["moved"].quantile([0.5, 0.95, 1.0]).tolist()
        print(
            f"| {name} | {share(own['found'], own['file'])} | {share(other, found['file'])} | "
            f"{share(across, found['file'])} | {', '.join(f'{one:.2f}' for one in moved)} |"
        )


if __name__ == "__main__":
    main()
