"""``handscope metrics``: distances of a set of pictures to a reference, and scores of each picture."""

import argparse
from pathlib import Path
from typing import Any

from ..errors import HandscopeError
from ..progress import Progress
from .options import names
from .verb import add_verb, remark, say, show


def add(verbs: Any) -> None:
    """Add ``metrics``."""
    verb = add_verb(verbs, "metrics", _metrics, "FID, KID, MMD, precision, recall, CLIP score or a measure of your own")
    verb.add_argument("pictures", metavar="PICTURES", nargs="+", help="folders, run folders or files to be measured")
    verb.add_argument("--reference", metavar="PICTURES", help="what distances are to: a folder, or a run folder")
    verb.add_argument(
        "--metrics",
        type=names,
        default=["kid"],
        metavar="LIST",
        help="of kid, mmd, frechet, torch-fidelity:fid (:kid, :precision, :recall), clip-score=FOLDER, and "
        "module:function of your own (default kid)",
    )
    verb.add_argument(
        "--features",
        default="landmark",
        metavar="NAME",
        help="what distances are of: landmark, transformers=FOLDER of a CLIP or DINOv2, inception=FILE (default "
        "landmark)",
    )
    verb.add_argument("--crops", action="store_true", help="features of the surest instance in each picture")
    verb.add_argument("--prompt", default="", help="of pictures that have no metadata.jsonl beside them")
    verb.add_argument("--out", default="metrics", metavar="FOLDER", help="where tables are written (default metrics)")


def _metrics(arguments: argparse.Namespace, progress: Progress) -> None:
    from dataclasses import replace

    import numpy as np
    import pandas as pd

    from ..evaluation.metrics import Metric, named
    from ..evaluation.metrics.measure import distance, mean, of_files, row, table
    from ..files import write_csv
    from .anatomy_known import prompts_by_metadata

    def found(text: str, **settings: Any) -> Metric:
        name, _, path = text.partition("=")
        return named(name, **settings, **({"path": path} if path else {}))

    measures = [found(text) for text in arguments.metrics]
    distances = [one for one in measures if one.kind == "distance"]
    scores = [one for one in measures if one.kind == "picture"]
    if wrong := [one.name for one in measures if one.kind == "features"]:
        raise HandscopeError(
            f"{', '.join(wrong)} is no metric: name it with --features, and a distance with --metrics."
        )
    if distances and not arguments.reference:
        raise HandscopeError(f"{distances[0].name} is a distance: say to which pictures with --reference.")
    features = found(arguments.features, **({"crops": True} if arguments.crops else {})) if distances else None
    if features and features.kind != "features":
        raise HandscopeError(f"{features.name} gives no features: expected landmark, transformers or inception.")
    pictures = _pictures(arguments.pictures)
    prompts = prompts_by_metadata(pictures)
    said = [prompts.get(path, arguments.prompt) for path in pictures]
    if scores and not all(said):
        raise HandscopeError(f"{scores[0].name} needs prompts: a metadata.jsonl beside the pictures, or --prompt.")
    # Pictures without a prompt of their own are not known to be alike.
    groups = [prompts.get(path) or f"{number}" for number, path in enumerate(pictures)]
    rows, columns = [], {"path": [str(path) for path in pictures], "prompt": said}
    if features:
        of = features.name + (" of crops" if arguments.crops else "")
        against = of_files(replace(features, name="reference"), _pictures([arguments.reference]), progress=progress)
        own = of_files(features, pictures, progress=progress)
        rows += [row(one.name, distance(one, own, against, np.array(groups, object)), of) for one in distances]
    for one in scores:
        values = of_files(one, pictures, said, progress)
        columns[one.name] = values.tolist()
        rows.append(row(one.name, mean(values, np.array(groups, object))))
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    result = table(rows)
    write_csv(folder / "metrics.csv", result)
    if scores:
        write_csv(folder / "pictures.csv", pd.DataFrame(columns))
    for one in result.itertuples():
        of_what = f" of {one.features} features" if one.features else ""
        to = f", to {one.m:,}" if one.m else ""
        text = f"{one.metric}{of_what}: {one.value:.4g} [{one.lo:.4g}, {one.hi:.4g}], {one.n:,} pictures{to}"
        show(text, **{name: getattr(one, name) for name in result.columns})
        if one.warning:
            remark(f"  {one.warning}")
    say("metrics", f"in {folder / 'metrics.csv'}")


def _pictures(given: list[str]) -> list[Path]:
    """Files of folders; of a run folder, its samples."""
    from ..anatomy.read.pictures import find_pictures

    samples = [Path(one) / "samples" for one in given]
    return find_pictures(inner if inner.is_dir() else one for inner, one in zip(samples, given)).pictures
