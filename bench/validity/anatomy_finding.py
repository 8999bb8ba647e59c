"""What finds the hands of pictures: step by step of the search, by kind of picture, with intervals and times.

    python bench/validity/anatomy_finding.py PICTURES [--out found.jsonl]

PICTURES has a pictures.csv (file, shows, label; label none where there is no hand). Each kind is looked at as it is,
and, where it has colour, in grey too. A picture counts as found if a hand is found in it, whichever; what is found
where there is no hand is false. Besides pictures that are labelled so, those of people were looked at, and some show no
hand (`HANDLESS`); feet are the lowest fifth of pictures of standing people (`STANDING`). What was found stays in --out,
a line a picture, so that it can be gone on with.
"""

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import pandas as pd
import torch
from handscope.analysis.statistics.rates import wilson
from handscope.anatomy.read.detect import SEARCH, detect
from handscope.anatomy.read.pictures import Picture, read_picture
from handscope.anatomy.read.tone import LUMA

HANDLESS = [f"people/human_{number}.jpg" for number in (*range(153, 164), 166, 167, 188, 191, 193)]
STANDING = [f"people/human_{number}.jpg" for number in (145, 150, 151, 175)]
STANDING += [
    f"cgi/human_{number}.jpg"
    for number in (200, 203, 204, 207, 209, 210, 211, 215, 217, 218, 219, 224, 226, 229, 232, 233)
]
NONE = ("no hand", "feet")
STEPS = ("palm", *(step.name for step in SEARCH))


def jobs(root: Path) -> list[tuple[str, str, str]]:
    """(file, kind, how it is shown: "colour", "grey", or "lowest fifth")."""
    rows = []
    for row in pd.read_csv(root / "pictures.csv").itertuples():
        kind = "no hand" if row.label == "none" or row.file in HANDLESS else row.shows
        rows += [(row.file, kind, "colour"), (row.file, kind, "grey")]
    return rows + [(file, "feet", "lowest fifth") for file in STANDING]


def shown(image: torch.Tensor, how: str) -> torch.Tensor:
    """A picture (3, h, w) as it is shown."""
    if how == "grey":
        return torch.einsum("chw,c->hw", image, torch.tensor(LUMA)).expand(3, -1, -1).contiguous()
    return image[:, image.shape[1] * 4 // 5 :] if how == "lowest fifth" else image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--out", type=Path, default=Path("found.jsonl"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    lines = options.out.read_text().splitlines() if options.out.exists() else []
    done = {tuple(line["job"]): line for line in map(json.loads, lines)}
    with options.out.open("a") as out:
        for job in jobs(options.pictures):
            if job in done:
                continue
            read = read_picture(options.pictures / job[0])
            assert isinstance(read, Picture), read
            begin = time.process_time()
            hands = detect([shown(read.tensor(), job[2])])
            seconds = time.process_time() - begin
            ways = [[by, round(p, 3)] for by, p in zip(hands.found_by, hands.presence.tolist(), strict=True)]
            done[job] = {"job": job, "hands": ways, "seconds": seconds}
            out.write(json.dumps(done[job]) + "\n")
            out.flush()
    table(list(done.values()))


def table(lines: list[dict]) -> None:
    kinds = defaultdict(list)
    for line in lines:
        _, kind, how = line["job"]
        kinds[kind, how].append(line)
        kinds["all with hands" if kind not in NONE else "all without", how.replace("lowest fifth", "colour")].append(
            line
        )
    print(f"| | n | {' | '.join(STEPS)} | found |\n|---|---|{'---|' * len(STEPS)}---|")
    for (kind, how), some in sorted(kinds.items(), key=lambda pair: (pair[0][1] != "colour", pair[0])):
        by = [next(iter(line["hands"]), [None])[0] for line in some]
        found = sum(one is not None for one in by)
        low, high = (float(end) for end in wilson(found, len(some)))
        counts = " | ".join(str(by.count(step)) for step in STEPS)
        print(f"| {kind}, {how} | {len(some)} | {counts} | {found} ({low:.0%}–{high:.0%}) |")
    empty = [line["seconds"] for line in lines if not line["hands"]]
    print(
        f"\nProcessor time of a picture in which nothing is found: {pd.Series(empty).mean():.2f} s in the mean, "
        f"{pd.Series(empty).quantile(0.95):.2f} s at the 95th percentile (n = {len(empty)})."
    )


if __name__ == "__main__":
    main()
