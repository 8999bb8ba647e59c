"""``handscope claims``: what the sources say of hands, each asked anew by a small measurement, with a figure."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import at_least, load_model, model_options, numbers, seed, share
from .verb import add_verb, remark, say, show

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def add(verbs: Any) -> None:
    """Add ``claims`` and a verb for each claim."""
    claims = add_verb(verbs, "claims", _list, "what others claim of hands, asked anew; lists the claims")
    inner = claims.add_subparsers(title="claims", metavar="CLAIM")

    def claim(name: str, function: Any, text: str, model: bool = False) -> argparse.ArgumentParser:
        verb = add_verb(inner, name, function, text)
        verb.add_argument("--out", default="claims", metavar="FOLDER", help="for its table and figure (default claims)")
        if model:
            verb.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: float32 on a CPU")
            model_options(verb, model="organism", device="cpu")
        return verb

    verb = claim("table", _table, "a published table, re-derived from its own rows")
    verb.add_argument(
        "table", nargs="?", metavar="FILE", help="a CSV of group, name, and n and bad, or rate; or a YAML"
    )
    verb = claim("loss", _loss, "what a pixel loss and the anatomy say of a sixth finger and of a shift of colour")
    verb.add_argument("--hands", type=at_least(4), default=60, metavar="N", help="pairs that are drawn (default 60)")
    verb.add_argument("--fault", default="six", help="a fault of the renderer (default six)")
    verb.add_argument("--seed", type=seed, default=0, help="of the renders (default 0)")
    verb = claim("codec", _codec, "count and verdict before and after the model's autoencoder, by size", model=True)
    verb.add_argument("--hands", type=at_least(2), default=24, metavar="N", help="hands of each size (default 24)")
    verb.add_argument("--pictures", nargs="+", metavar="PICTURES", help="your own, each of one hand (default: renders)")
    verb.add_argument("--seed", type=seed, default=0, help="of the renders (default 0)")
    verb = claim("counting", _counting, "whether the text encoders' embeddings say how many", model=True)
    verb.add_argument("--permutations", type=at_least(1), default=999, help="behind each p (default 999)")
    verb = claim("size", _size, "rate of implausible hands by their size, and by how surely they are seen")
    verb.add_argument("scores", nargs="+", metavar="SCORES", help="scores.csv of anatomy score, or their folders")
    verb.add_argument("--bins", type=at_least(2), default=4, help="of as many hands each (default 4)")
    verb = claim("steps", _steps, "rate of wrong hands by the number of steps, the same noises", model=True)
    verb.add_argument(
        "--steps", type=numbers, default=[10, 20, 50], help="default 10,20,50; the first is compared with"
    )
    verb.add_argument("--seeds", type=at_least(1), default=2, help="pictures of each prompt (default 2)")
    verb.add_argument("--prompts", metavar="FILE", help="one a line (default: the organism's captions)")
    verb = claim("passes", _passes, "rates of sets of scored pictures, such as of one pass and of many steps")
    verb.add_argument(
        "sets", nargs="+", metavar="NAME=SCORES", help="scores.csv of anatomy score; the first is the base"
    )
    verb = claim("imbalance", _imbalance, "whether an organism that saw little of one gesture draws it wrong")
    verb.add_argument(
        "what", choices=("thin", "compare"), help="thin renders for two trainings; compare what was trained"
    )
    verb.add_argument("--work", metavar="DIR", help="of thin: the work folder of a training, with its renders")
    verb.add_argument("--gesture", default="three", help="the one that is rare (default three)")
    verb.add_argument("--keep", type=share, default=0.02, help="the share of it that is kept (default 0.02)")
    verb.add_argument("--shards", type=at_least(1), help="of the renders (default: all)")
    verb.add_argument("--balanced", metavar="FOLDER", help="of compare: the pipeline that saw all gestures")
    verb.add_argument("--imbalanced", metavar="FOLDER", help="of compare: the pipeline that saw little of one")
    verb.add_argument("--seeds", type=at_least(1), default=2, help="pictures of each caption (default 2)")
    verb.add_argument("--steps", type=at_least(1), default=20, help="of each picture (default 20)")


def _list(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..claims import CLAIMS

    for name, claim in CLAIMS.items():
        show(
            f"{name}: {claim.says} ({claim.by})\n  asks {claim.asks};\n  it does not show {claim.cannot}", **vars(claim)
        )
    say("claims", "handscope claims NAME asks one; docs/claims.md has what was found")


def _keep(arguments: argparse.Namespace, name: str, table: "pd.DataFrame", draw: Callable[["Axes"], object]) -> None:
    """Write a claim's table and figure, and say where and what they do not show."""
    import matplotlib as mpl

    from ..claims import CLAIMS
    from ..figures import STYLE, figure, save
    from ..files import write_csv

    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / f"{name}.csv", table)
    with mpl.rc_context(STYLE):
        drawn = figure(7, 4)
        draw(drawn.subplots())
        save(drawn, folder, name)
    remark(f"It does not show {CLAIMS[name].cannot}.")
    say("claims", f"{folder / f'{name}.csv'} and {name}.png")


def _table(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..claims import draw
    from ..claims.tables import SHIPPED, read_published, rederive

    published = read_published(Path(arguments.table) if arguments.table else SHIPPED)
    found = rederive(published)
    if published.citation:
        remark(published.citation)
    for row in found.itertuples():
        interval = "" if row.lo != row.lo else f" [{row.lo:.4g}, {row.hi:.4g}]"
        beside = {True: f", as printed ({row.printed})", False: f": printed is {row.printed}", None: ""}[row.agrees]
        show(f"{row.quantity}: {row.value:.4g}{interval}{beside}; {row.how}", **row._asdict())
    printed = found[found["printed"] != ""]
    if len(printed):
        _keep(arguments, "table", found, lambda ax: draw.table(found, ax))
        remark(f"{int((printed['agrees'] == False).sum())} of {len(printed)} printed numbers do not follow.")  # noqa: E712
    else:
        remark("Nothing was printed of it that could be compared: a YAML file can say what was (docs/claims.md).")


def _loss(arguments: argparse.Namespace, progress: Progress) -> None:
    import pandas as pd

    from ..claims import draw
    from ..claims.loss import TIMES, blindness
    from ..organism.hands import FAULTS

    if arguments.fault not in FAULTS:
        raise HandscopeError(f"Expected a fault of {', '.join(FAULTS)}, found {arguments.fault!r}.")
    found = blindness(arguments.hands, arguments.fault, seed=arguments.seed, progress=progress)
    for wider, middle, low, high in found.shifts():
        text = f"in a picture {wider} times as wide as the render" if wider > 1 else "in a picture that the hand fills"
        show(
            f"{text}, the fault costs as much as a shift of the background by {middle:.1f} of 255 levels "
            f"(quartiles {low:.1f} to {high:.1f})",
            wider=wider, levels=middle, low=low, high=high,
        )  # fmt: skip
    rows = []
    for name, worse in found.worse.items():
        for times, pairs in zip(TIMES, worse):
            rows.append({"loss": name, "times": times, "n": len(pairs), "fault_worse": pairs.mean()})
        said = ", ".join(f"{pairs.mean():.0%} at {times:g} times that shift" for times, pairs in zip(TIMES, worse))
        show(f"{name}: the fault is the worse in {said}", loss=name, shares=worse.mean(1))
    _keep(arguments, "loss", pd.DataFrame(rows), lambda ax: draw.loss(found, ax))


def _codec(arguments: argparse.Namespace, progress: Progress) -> None:
    import pandas as pd

    from ..claims import draw
    from ..claims.codec import by_side, kept, on_renders

    model = load_model(arguments)
    if arguments.pictures:
        from ..anatomy.read.given import as_pictures
        from ..anatomy.read.pictures import find_pictures

        parts = []
        for picture in as_pictures(find_pictures(arguments.pictures).pictures):
            tall, wide = (int(side) // 64 * 64 for side in picture.shape[-2:])
            if not tall or not wide:
                raise HandscopeError("A picture is smaller than 64 pixels, and cannot be encoded: leave it out.")
            parts.append(kept(model, picture[None, :, :tall, :wide]))
        rows = pd.concat(parts, ignore_index=True)
        rows["group"] = range(len(rows))
        rows = rows[rows["found"]]
        if len(rows) < 2:
            raise HandscopeError("A hand was found in fewer than two pictures: there is nothing to compare.")
        bins = pd.qcut(rows["side"], min(4, len(rows)), duplicates="drop")
        for name in ("side", "latents"):
            rows[name] = rows.groupby(bins, observed=True)[name].transform("median")
    else:
        rows = on_renders(model, arguments.hands, arguments.seed, progress)
    table = by_side(rows)
    for row in table.itertuples():
        show(
            f"{row.side:.0f} pixels, {row.latents:.1f} latents (n = {row.n}): found {row.found:.0%}, then "
            f"{row.found_after:.0%}; counted five {row.five:.0%}, then {row.five_after:.0%}; {row.psnr:.1f} dB",
            **row._asdict(),
        )
    _keep(arguments, "codec", table, lambda ax: draw.codec(table, ax))


def _counting(arguments: argparse.Namespace, progress: Progress) -> None:
    import pandas as pd

    from ..claims import draw
    from ..claims.counting import counting

    found = counting(load_model(arguments), arguments.permutations, progress=progress)
    for one in found:
        order = (
            f"; the size of a word it has not seen: tau-b {one.order:.2f}, p {one.order_p:.3g}"
            if one.order == one.order
            else f"; {one.numbers} number words are too few to ask for the size of one it has not seen"
        )
        text = f"{one.embedding}: tells {one.accuracy:.0%} of number words in new templates (chance {one.chance:.0%}, "
        show(f"{text}p {one.p:.3g}){order}", **vars(one))
    rows = [{key: value for key, value in vars(one).items() if key != "predicted"} for one in found]
    _keep(arguments, "counting", pd.DataFrame(rows), lambda ax: draw.counting(found, ax))


def _groups(table: "pd.DataFrame") -> Any:
    """The prompts of scored pictures where they are known, else the pictures."""
    from .anatomy_known import prompts_by_metadata

    paths = [Path(one) for one in table["path"]]
    known = prompts_by_metadata(paths)
    return [known.get(path) or str(path) for path in paths]


def _size(arguments: argparse.Namespace, progress: Progress) -> None:
    import pandas as pd

    from ..claims import draw
    from ..claims.rates import by_bins, read_scores, trend

    table = pd.concat([read_scores(Path(one)) for one in arguments.scores], ignore_index=True)
    groups = _groups(table)
    parts = []
    for name, text in (("size", "pixels"), ("presence", "probability that a hand is seen")):
        bins = by_bins(table[name], table["bad"], groups, arguments.bins)
        found, p = trend(table[name], table["bad"], groups)
        for row in bins.itertuples():
            show(
                f"{text} {row.low:.3g} to {row.high:.3g}: implausible {row.rate:.0%} [{row.lo:.0%}, {row.hi:.0%}] of "
                f"{row.n}",
                by=name, **row._asdict(),
            )  # fmt: skip
        show(
            f"{text}: rho {found.value:.2f} [{found.lo:.2f}, {found.hi:.2f}], p {p:.3g}", by=name, rho=found.value, p=p
        )
        parts.append(bins.assign(by=name))
    undetected, n = int((table["outcome"] == "undetected").sum()), len(table)
    remark(f"Of {n} rows, {undetected} pictures have no hand that was found, and no size: they are in no bin.")
    rows = pd.concat(parts, ignore_index=True)
    names = [f"{row.by} {row.low:.3g} to {row.high:.3g}" for row in rows.itertuples()]
    _keep(arguments, "size", rows, lambda ax: draw.rates(rows, names, ax))


def _steps(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..claims import draw
    from ..claims.rates import over_steps
    from ..organism.captions import CAPTIONS
    from ..run.prompts import read_prompts

    prompts = read_prompts(Path(arguments.prompts)) if arguments.prompts else [str(one) for one in CAPTIONS]
    if len(set(arguments.steps)) < 2:
        raise HandscopeError(f"Expected two numbers of steps or more, found {arguments.steps}.")
    model = load_model(arguments)
    table = over_steps(model, Path(arguments.out) / "steps", prompts, arguments.seeds, arguments.steps, progress)
    for row in table.itertuples():
        change = "" if row.p != row.p else (
            f"; {row.difference:+.1%} [{row.lo:+.1%}, {row.hi:+.1%}] beside {arguments.steps[0]}, p {row.p:.3g} (Holm "
            f"{row.p_holm:.3g})"
        )  # fmt: skip
        show(f"{row.steps} steps: wrong {row.rate:.1%} of {row.n} pairs that could be judged{change}", **row._asdict())
    names = [f"{row.steps} steps (n = {row.n})" for row in table.itertuples()]
    plain = table.drop(columns=["lo", "hi"])
    _keep(arguments, "steps", table, lambda ax: draw.rates(plain, names, ax, label="share of wrong hands"))


def _passes(arguments: argparse.Namespace, progress: Progress) -> None:
    import numpy as np

    from ..claims import draw
    from ..claims.rates import beside_first, read_scores

    sets = {}
    for text in arguments.sets:
        name, equals, path = text.partition("=")
        if not equals or name in sets:
            raise HandscopeError(f"Expected sets such as gan=scored/scores.csv, each with a name of its own: {text!r}.")
        scored = read_scores(Path(path))
        sets[name] = (scored["bad"].to_numpy(float), np.array(_groups(scored), object))
    table = beside_first(sets)
    for row in table.itertuples():
        change = "" if row.p != row.p else (
            f"; {row.difference:+.1%} [{row.d_lo:+.1%}, {row.d_hi:+.1%}], p {row.p:.3g} (Holm {row.p_holm:.3g})"
        )  # fmt: skip
        show(f"{row.set}: implausible {row.rate:.1%} [{row.lo:.1%}, {row.hi:.1%}] of {row.n}{change}", **row._asdict())
    names = [f"{row.set} (n = {row.n})" for row in table.itertuples()]
    _keep(arguments, "passes", table, lambda ax: draw.rates(table, names, ax))


def _imbalance(arguments: argparse.Namespace, progress: Progress) -> None:
    from ..claims import draw
    from ..claims.imbalance import SIDES, compare, thin

    if arguments.what == "thin":
        if not arguments.work:
            raise HandscopeError("Say with --work where the renders of a training are.")
        thin(Path(arguments.work), Path(arguments.out), arguments.gesture, arguments.keep, arguments.shards)
        say("claims", f"train one organism in each of {' and '.join(str(Path(arguments.out) / one) for one in SIDES)}")
        return
    folders = {side: getattr(arguments, side) for side in SIDES}
    if not all(folders.values()):
        raise HandscopeError("Say with --balanced and --imbalanced where the two pipelines are.")
    found = compare(folders, Path(arguments.out), arguments.gesture, arguments.seeds, arguments.steps, progress)
    for row in found.rates.itertuples():
        show(
            f"{row.gesture}: mean P(bad) {row.balanced:.2f}, then {row.imbalanced:.2f}; {row.added:+.2f} "
            f"[{row.lo:+.2f}, {row.hi:+.2f}] (n = {row.n})",
            **row._asdict(),
        )
    show(
        f"{found.gesture}, beyond the others: {found.beyond:+.2f} [{found.lo:+.2f}, {found.hi:+.2f}], p {found.p:.3g}",
        beyond=found.beyond, lo=found.lo, hi=found.hi, p=found.p,
    )  # fmt: skip
    _keep(arguments, "imbalance", found.rates, lambda ax: draw.imbalance(found, ax))
