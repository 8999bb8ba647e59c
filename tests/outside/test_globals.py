"""Switches that a notebook sets for other libraries change neither whether a run is analysed nor what comes out."""

import locale
import shutil
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import sklearn
import torch


@contextmanager
def frames_of_sklearn() -> Iterator[None]:
    with sklearn.config_context(transform_output="pandas"):
        yield


@contextmanager
def strict_numpy() -> Iterator[None]:
    with np.errstate(all="raise"):
        yield


@contextmanager
def short_frames() -> Iterator[None]:
    options = {"display.precision": 2, "mode.string_storage": "python", "future.infer_string": False}
    options |= {"display.max_rows": 3, "display.float_format": "{:.1f}".format, "mode.chained_assignment": "raise"}
    with ExitStack() as stack:
        for name, value in options.items():
            with suppress(pd.errors.OptionError, KeyError):
                stack.enter_context(pd.option_context(name, value))
        yield


@contextmanager
def torch_elsewhere() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        torch.set_default_device(None)
        torch.set_grad_enabled(True)
        torch.use_deterministic_algorithms(False)


@contextmanager
def warnings_as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@contextmanager
def comma_for_a_point() -> Iterator[None]:
    before = locale.setlocale(locale.LC_ALL)
    for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "C"):
        with suppress(locale.Error):
            locale.setlocale(locale.LC_ALL, name)
            break
    try:
        yield
    finally:
        locale.setlocale(locale.LC_ALL, before)


@contextmanager
def another_matplotlibrc() -> Iterator[None]:
    """text.usetex asks for a LaTeX that few have."""
    changed = {
        "text.usetex": True, "axes.formatter.use_locale": True, "axes.formatter.use_mathtext": True,
        "savefig.format": "pdf", "savefig.bbox": "tight", "figure.constrained_layout.use": True,
        "font.family": ["NoSuchFont"], "figure.max_open_warning": 1, "axes.unicode_minus": False,
        "svg.fonttype": "none", "figure.dpi": 30, "axes.titlesize": 40, "image.origin": "lower",
        "path.sketch": (1, 9, 9),
        "text.parse_math": False, "image.cmap": "jet", "lines.linewidth": 9, "axes.grid": True, "legend.loc": "center",
    }  # fmt: skip
    with mpl.rc_context(changed):
        yield


SWITCHES = [
    frames_of_sklearn, strict_numpy, short_frames, torch_elsewhere, warnings_as_errors, comma_for_a_point,
    another_matplotlibrc,
]  # fmt: skip


def results(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("analysis/*.csv"))}


def analysed_and_reported(run):
    from handscope.analysis import analyze
    from handscope.probes import probe
    from handscope.report.page import report

    analyze(run, permutations=5, folds=3)
    probe(run, permutations=3, folds=3)
    report(run)


@pytest.mark.slow
def test_under_all_switches_at_once(finished_run, tiny_model, tmp_path):
    from handscope.extract.address import Plan
    from handscope.extract.extract import extract
    from handscope.run.folder import Run

    plain = Run(shutil.copytree(finished_run.path, tmp_path / "plain"))
    extract(tiny_model, plain, Plan(["double.1", "single.2"], [4], of=4))
    run = Run(shutil.copytree(plain.path, tmp_path / "switched"))
    analysed_and_reported(plain)
    with ExitStack() as stack:
        for switch in SWITCHES:
            stack.enter_context(switch())
        analysed_and_reported(run)
    assert results(run.path) == results(plain.path)
    drawn = {path.name for path in plain.figures_dir.glob("*.png")}
    assert drawn and {path.name for path in run.figures_dir.glob("*.png")} == drawn
