"""Runs whose results are invented, in which some cells are significant, or none is."""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from handscope.labeling.database.labels import Annotation, Labels
from handscope.labeling.subject import Subject, set_subject, subject_of
from handscope.report.results import Results
from handscope.run.folder import Run, sample_id
from PIL import Image
from safetensors.numpy import save_file

BLOCKS, STEPS = ("double.1", "single.0", "single.3"), (20, 12, 4, 1)
BASELINES = dict.fromkeys(("prompt", "position", "noise", "final_image"), (None,)) | dict.fromkeys(
    ("x_t", "x0", "image", "norm", "random"), STEPS
)
VERDICTS = ("good", "good", "good", "bad", "bad", "good?", "bad?", "unsure")


def invented(folder: Path, signal: float, beyond: tuple[str, ...] = ("x0",), subject: Subject | None = None) -> Run:
    """A run whose tables are invented: 24 good and 16 bad hands of 8 prompts, 3 blocks and 4 steps.

    With a `signal` larger than 0 the probes are better at later steps, best in single.3, and significant at steps 4
    and 1; and blocks add significantly to the baselines named in `beyond`. With a `subject`, the run is of that.
    """
    run = Run(folder)
    if subject is not None:
        set_subject(run, subject)
    prompts = [
        f"a {side} hand, {view} view, five fingers raised, tan skin, {background} background"
        for side in ("left", "right")
        for view in ("palm", "back")
        for background in ("blue", "teal")
    ]
    if subject is not None:
        prompts = [f"a {colour} {subject.noun} in picture {i}" for i in range(4) for colour in ("red", "grey")]
    _samples(run, prompts)
    run.analysis_dir.mkdir()
    cells = [{"block": block, "step": step} for block in BLOCKS for step in STEPS]
    counts = {"n_good": 24, "n_bad": 16}

    probes = [
        {
            "subset": subset,
            **cell,
            **counts,
            **scores(cell["step"], signal * (1 if cell["block"] == "single.3" else 0.5)),
        }
        for subset in ("sure", "all")
        for cell in cells
    ]
    for row in probes:
        row["n_good"] += 8 * (row["subset"] == "all")
    baselines = [
        {
            "subset": subset,
            "baseline": name,
            "step": step,
            **counts,
            **scores(step or 20, signal * 0.4 * (name == "x0")),
        }
        for subset in ("sure", "all")
        for name, steps in BASELINES.items()
        for step in steps
    ]
    distances = {
        "db": 4.1,
        "db_mean_term": 3.0,
        "db_variance_term": 1.1,
        "db_null_mean": 3.7,
        "db_null_sd": 0.8,
        "db_excess": 0.4,
        "db_lo": -0.9,
        "db_hi": 1.7,
        "db_z": 0.5,
        "db_p": 0.4,
        "db_q": 0.6,
    }
    directions = [
        {f"dom_{name}": value for name, value in scores(cell["step"], signal * 0.7).items()} for cell in cells
    ]
    analysed = [
        {
            **cell,
            "sigma": cell["step"] / 20,
            **counts,
            "n_prompts": 8,
            "dom_auc_in_sample": 0.93,
            **direction,
            **distances,
            "pca_var1": 0.5,
            "pca_var2": 0.2,
            "massive_channels": "3;17" if cell["block"] == "single.3" else "",
        }
        for cell, direction in zip(cells, directions, strict=True)
    ]
    added = [
        {**cell, "baseline": name, **gain(signal > 0 and name in beyond and cell["step"] < 12)}
        for cell in cells
        for name in ("prompt", "position", "norm", "x_t", "x0", "x0_flat", "image", "all")
    ]
    pairs = [
        {
            "block_a": a["block"],
            "step_a": a["step"],
            "block_b": b["block"],
            "step_b": b["step"],
            "cosine": 0.5,
            "cosine_split": 0.4,
        }
        for a in cells
        for b in cells
    ]
    sure = run.samples().merge(Labels(run.labels_path).table().query("sure"), on="sample")
    order = sure.assign(fold=0)[["sample", "prompt", "bad", "fold", "verdict"]]
    for name, rows in {
        "probes": probes,
        "baselines": baselines,
        "cells": analysed,
        "added": added,
        "whole_picture": [{**cell, **gain(False)} for cell in cells],
        "cosines": pairs,
        "samples": order,
    }.items():
        pd.DataFrame(rows).to_csv(run.analysis_dir / f"{name}.csv", index=False)
    rng = np.random.default_rng(0)
    coordinates = {
        f"{cell['block']}/{cell['step']}/{kind}": rng.normal(size=(len(sure), 2))
        for cell in cells
        for kind in ("pca", "plane")
    }
    save_file(
        {name: array.astype(np.float32) for name, array in coordinates.items()}, run.analysis_dir / "cells.safetensors"
    )
    return run


def _samples(run: Run, prompts: list[str]) -> None:
    rng = np.random.default_rng(0)
    fault = "fused" if "fused" in subject_of(run).kinds else next(iter(subject_of(run).kinds))
    run.samples_dir.mkdir()
    rows, annotations = {}, []
    for prompt in prompts:
        for seed, verdict in enumerate(VERDICTS):
            sample = sample_id(prompt, seed)
            pixels = rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(run.image_path(sample))
            image = hashlib.sha256(pixels.tobytes()).hexdigest()
            rows[sample] = {
                "sample": sample,
                "prompt": prompt,
                "seed": seed,
                "file_name": f"{sample}.png",
                "image_sha256": image,
                "noise_sha256": "",
                "height": 32,
                "width": 32,
                "steps": 20,
                "guidance": 3.5,
                "batch_size": 16,
            }
            hands = np.zeros((4, 4), np.uint8)
            hands[1:4, seed % 2 : 3] = 1
            label = {"g": 2, "b": 3, "u": 0}[verdict[0]]
            annotations.append(
                Annotation(
                    sample,
                    image,
                    np.where(hands > 0, label, 1),
                    hands,
                    verdict,
                    (fault,) if label == 3 else (),
                    "test",
                    "painted",
                )
            )
    run.write_metadata(rows)
    Labels(run.labels_path).add(annotations)
    run.write_settings(
        {
            "model": {"weight_hash": "0123abcd"},
            "provenance": {"name": "organism", "torch": "2.13.0"},
            "generation": {"steps": 20, "guidance": 3.5, "height": 32, "width": 32},
            "labels": {
                "sources": {"hand labels": 64},
                "shipped_identical": 41,
                "shipped_alike": 23,
                "same_picture_db": 40.0,
            },
        }
    )


def scores(step: int, gain: float) -> dict[str, float]:
    """The statistics of a row, for all pairs and for pairs within a prompt."""
    auc, found = 0.5 + gain * (1 - step / 20), gain > 0 and step < 12
    row = {
        "auc": auc,
        "lo": auc - 0.06,
        "hi": auc + 0.06,
        "null_mean": 0.5,
        "null_sd": 0.03,
        "p": 0.001 if found else 0.4,
        "q": 0.004 if found else 0.6,
    }
    return row | {f"within_{name}": value for name, value in row.items()}


def gain(found: bool) -> dict[str, float]:
    row = dict(
        zip(
            ("auc_baseline", "auc_both", "added", "lo", "hi", "p", "q"),
            (0.6, 0.67, 0.07, 0.02, 0.12, 0.001, 0.01) if found else (0.6, 0.61, 0.01, -0.06, 0.08, 0.5, 0.7),
            strict=True,
        )
    )
    return row | {f"within_{name}": value for name, value in row.items()}


def with_optional(run: Run, found: bool) -> Results:
    """The same run with every table that a run may lack; separable at steps below 12 if `found`, and nowhere else."""
    cells = [{"block": block, "step": step} for block in BLOCKS for step in STEPS]
    counts = {"n_good": 24, "n_bad": 10}
    scored = [{**cell, **counts, **scores(cell["step"], 0.3 * found)} for cell in cells]
    direction = [{f"dom_{name}" if name in scores(1, 0) else name: v for name, v in row.items()} for row in scored]
    no_pairs = {"dom_auc": np.nan, "dom_q": np.nan, "reason": "2 bad samples have global faults alone"}
    ways = [{**a, "judged_block": b["block"], "judged_step": b["step"]} for a in cells for b in cells]
    bins = [{"predicted": at, "observed": at, "lo": at - 0.1, "hi": at + 0.1, "n": 8} for at in (0.2, 0.4, 0.6, 0.8)]
    tables = {
        "contrasts": [{"contrast": "local", **row, "cosine_all": 0.6, "reason": ""} for row in direction]
        + [{"contrast": "global", **cell, "n_good": 24, "n_bad": 2, **no_pairs} for cell in cells],
        "gaussianity": [
            {
                **cell, "effective_rank": 30.0, "kurtosis": 2.0, "kurtosis_max": 9.0, "norm_outliers": 0.01,
                "llr_auc_implied": 0.93, "llr_auc_in_sample": 0.8, "llr_auc": 0.52,
                "reason": "heavy tails" if found else "",
            }
            for cell in cells
        ],
        "transfer": [
            {
                "block_a": way["block"], "step_a": way["step"], "block_b": way["judged_block"],
                "step_b": way["judged_step"], "auc": 0.6, "null_sd": 0.04, "q": 0.01 if found else 0.4,
            }
            for way in ways
        ],
        "shared": [{"cells": 12, "auc": 0.66, "lo": 0.55, "hi": 0.74, "null_sd": 0.04, "p": 0.01 if found else 0.3}],
        "methods": [{"method": name, "l2": 10.0, **row} for name in ("ridge", "mass_mean") for row in scored],
        "calibration": [
            {
                **cell, "log_odds": name, "ece": 0.12, "null_mean": 0.07, "null_sd": 0.02, "excess": 0.05,
                "q": 0.01 if found and name == "raw" else 0.4,
            }
            for name in ("raw", "platt")
            for cell in cells
        ],
        "reliability": [
            {**cell, "log_odds": name, **row} for name in ("raw", "platt") for row in bins for cell in cells
        ],
        "probe_transfer": [
            {"fitted_block": way["block"], "fitted_step": way["step"], "auc": 0.55} | dict(list(way.items())[2:])
            for way in ways
        ],
        "conditional": [
            {**cell, "baseline": name, "null_sd": 0.02, "within_null_sd": 0.02}
            | {column: row[column] for column in row if not column.endswith(("lo", "hi"))}
            for name in ("all", "x0_flat")
            for cell in cells
            for row in [gain(found and cell["step"] < 12)]
        ],
        "survey": [
            {
                **{f"ridge_{name}" if name in scores(1, 0) else name: value for name, value in row.items()},
                "db_excess": 0.4, "db_q": 0.3, "split_cosine": 0.2,
            }
            for row in scored
        ],
    }  # fmt: skip
    for name, rows in tables.items():
        pd.DataFrame(rows).to_csv(run.analysis_dir / f"{name}.csv", index=False)
    return Results.read(run)
