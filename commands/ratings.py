"""``handscope ratings``: which metric follows the ratings that people gave to whole pictures."""

import argparse
from pathlib import Path
from typing import Any

from ..progress import Progress
from .options import at_least, names, seed
from .verb import add_verb, open_run, remark, say, show


def add(verbs: Any) -> None:
    """Add ``ratings``."""
    verb = add_verb(verbs, "ratings", _ratings, "which metric follows what people said of whole pictures", run=True)
    verb.add_argument(
        "--scores",
        action="append",
        default=[],
        metavar="CSV",
        help="a table with a column sample, file_name or path, and scores; once for each (anatomy/scores.csv is read "
        "where it is there)",
    )
    verb.add_argument(
        "--metrics", type=names, default=[], metavar="LIST", help="clip-score=FOLDER, module:function: see metrics"
    )
    verb.add_argument(
        "--classifier",
        default="landmark",
        metavar="NAME",
        help="features of a classifier that is fitted to ratings, held out by prompt and noise: landmark, "
        "transformers=FOLDER, inception=FILE, or none (default landmark)",
    )
    verb.add_argument("--lower", type=names, default=[], metavar="LIST", help="scores of which lower is better")
    verb.add_argument("--permutations", type=at_least(1), default=1000, help="behind each p (default 1000)")
    verb.add_argument("--folds", type=at_least(2), default=5, help="of prompts, for the classifier (default 5)")
    verb.add_argument("--seed", type=seed, default=0, help="of folds and permutations (default 0)")


def _ratings(arguments: argparse.Namespace, progress: Progress) -> None:
    run = open_run(arguments, begun=True)
    import matplotlib as mpl
    import pandas as pd

    from ..evaluation.metrics import named
    from ..evaluation.metrics.measure import of_files
    from ..evaluation.ratings import followed, held_out_ratings, rated, scores_of
    from ..figures import STYLE, figure, following, save
    from ..files import write_csv
    from ..labeling.agreement import agreement

    table = rated(run)
    paths = [run.image_path(sample) for sample in table["sample"]]
    lower = set(arguments.lower)
    parts = {}
    own = run.path / "anatomy" / "scores.csv"
    if own.exists():
        parts["anatomy"] = scores_of(own, table["sample"], table["file_name"])["score"]
    for path in arguments.scores:
        found = scores_of(Path(path), table["sample"], table["file_name"], lower)
        parts |= {str(name): found[name] for name in found}
    for text in arguments.metrics:
        name, _, where = text.partition("=")
        metric = named(name, **({"path": where} if where else {}))
        parts[name] = pd.Series(of_files(metric, paths, table["prompt"].tolist(), progress), table["sample"])
        lower |= set() if metric.higher else {name}
    if arguments.classifier != "none":
        name, _, where = arguments.classifier.partition("=")
        features = of_files(named(name, **({"path": where} if where else {})), paths, progress=progress)
        held = held_out_ratings(
            features, table["rating"], table["prompt"], table["noise"], arguments.folds, arguments.seed
        )
        parts[f"classifier of {name}"] = pd.Series(held, table["sample"])
    scores = pd.DataFrame(parts)
    result = followed(scores, table["rating"], table["prompt"], lower, arguments.permutations, arguments.seed)
    run.analysis_dir.mkdir(exist_ok=True)
    write_csv(run.analysis_dir / "ratings.csv", result)
    with mpl.rc_context(STYLE):
        drawn = figure(7, 1.4 + 0.5 * len(result))
        following(result, drawn.subplots())
        save(drawn, run.figures_dir, "ratings")
    for row in result.itertuples():
        text = f"{row.metric}: nothing varies, or fewer than ten samples have it (n = {row.n})"
        if row.tau == row.tau:
            told = "" if row.p_family <= 0.05 else ", not separable from chance"
            text = (
                f"{row.metric}: tau-b {row.tau:.2f} [{row.tau_lo:.2f}, {row.tau_hi:.2f}], rho {row.rho:.2f} "
                f"[{row.rho_lo:.2f}, {row.rho_hi:.2f}], within prompts {row.within:.2f}; p {row.p_family:.3g} of "
                f"{len(result)} scores (n = {row.n}){told}"
            )
        show(text, **{name: getattr(row, name) for name in result.columns})
    alphas = agreement(run)
    for row in alphas[alphas["measure"] == "rating alpha"].itertuples():
        remark(f"raters {row.of}: Krippendorff's alpha {row.value:.2f} [{row.low:.2f}, {row.high:.2f}]")
    if table["raters"].max() == 1:
        remark("Nobody rated a sample a second time: how far raters agree, which no score can pass, is not known.")
    say(
        "ratings",
        f"{len(table)} rated samples of {table['prompt'].nunique()} prompts; in "
        f"{run.analysis_dir / 'ratings.csv'} and {run.figures_dir / 'ratings.png'}",
    )
