"""The stages of a study, in one table: what each reads, writes and depends on, and where its code is.

The table is data and imports nothing heavy: ``study``, resuming, the report, ``--help``, docs/commands.md and tests are
made from it. A stage names its functions by their path in the package; they are imported when they are used.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

SUBJECT = "run.yaml: subject"
"""The subject of a run: the section of its run.yaml, or the default."""
LABELS = "labels.sqlite"
"""The labels of a run folder. What a stage reads of them is what they say, masks included, and not the file's bytes."""

VALUES_FILE = "values.csv"
"""Labels of several values, where the subject has them."""

CLASSES_FILE = "classes.csv"
"""Classes of single tokens, where there are some beside the subject."""


@dataclass(frozen=True)
class Table:
    """A CSV file that a stage writes.

    Attributes
    ----------
    path : str
        In the run folder.
    columns : dict of str to str
        What each column means; ``dom_*`` is a group of columns.
    optional : bool
        A run may lack it, and the report leaves out what would be said of it.
    """

    path: str
    columns: Mapping[str, str] = field(repr=False)
    optional: bool = False

    @property
    def name(self) -> str:
        """``cells`` of ``analysis/cells.csv``."""
        return self.path.rpartition("/")[2].removesuffix(".csv")

    def group(self, column: str) -> str | None:
        """The name in `columns` that a column of the file fits: its own before that of a group."""
        if column in self.columns:
            return column
        return next((name for name in self.columns if fnmatchcase(column, name)), None)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes
    ----------
    name, help : str
        The verb of the command line, and what it does in one line.
    command : str
        An example of the command.
    function, summary : str
        Where the function that does it is, and the one that says in a sentence what the run folder now holds.
    needs : str
        What it needs beside the files that it reads.
    reads : tuple of str
        Globs of files in the run folder.
    tables : tuple of Table
    files : tuple of str
        Globs of what else it writes.
    settings : dict of str to str
        The arguments that decide its result, each with the key of the study file that sets it.
    defaults : dict
        Arguments that decide it too, and that no key sets, with their values in a study.
    model : bool
        It uses the model that the run was begun with.
    version : int
        Raised when its numbers change their meaning, so that a finished stage is done again.
    sources : tuple of str
        Globs in the package: a change of these files makes its result stale.
    always : bool
        `study` runs it always; the others when the study's key ``also`` names them, or its design is theirs alone.
    designs : tuple of str
        The designs of a run that it can analyse: see `handscope.run.design`.
    divided : bool
        Machines can divide its samples: its function takes a ``shard``.
    figures : tuple of str
        Names of the figures that the report draws of it; ``sheet_*`` is a group of them.
    section : str
        The id of its section in the report, and after a space its title; empty where the report has none.
    """

    name: str
    help: str
    command: str
    function: str
    summary: str
    needs: str = ""
    reads: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    files: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    model: bool = False
    version: int = 1
    sources: tuple[str, ...] = ()
    always: bool = True
    divided: bool = False
    designs: tuple[str, ...] = ("own", "paired", "crossed")
    figures: tuple[str, ...] = ()
    section: str = ""

    @property
    def writes(self) -> tuple[str, ...]:
        """Globs of all that it writes."""
        return (*self.files, *(table.path for table in self.tables))

    def do(self) -> Callable[..., Any]:
        """Its function."""
        return _imported(self.function)

    def describe(self, run: Any) -> str:
        """What the run folder holds after it, in a sentence."""
        return str(_imported(self.summary)(run))


def _imported(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"{__package__}.{module}" if module else __package__), name)


CELL = {"block": "block, such as double.1", "step": "step, counted as steps that remain"}
COUNTS = {"n_good": "good samples, or instances where samples have several", "n_bad": "bad ones"}
MIXED = "pictures with good and bad instances"
SCORE = {
    "auc": "held-out AUC over pairs of any prompts",
    "lo": "lower end of its 95% interval, from draws of prompts",
    "hi": "upper end",
    "null_*": "mean and standard deviation over permuted labels",
    "p": "share of permuted labels that do as well",
    "p_floor": "the smallest p that the null could have given",
    "p_family": "p adjusted for all rows of the table, after Westfall and Young",
    "q": "false discovery rate over the rows of the table",
    "within_*": "the same over pairs of samples of one prompt",
}
BALANCED = {"balanced_*": "balanced accuracy and its interval"}
REASON = {"reason": "why a number is missing; empty where none is"}
DISTANCE = {
    "db": "Bhattacharyya distance of tokens in nats, in-sample",
    "db_*": "its parts, its null, what exceeds the null with interval, z, p, floor, p for all cells, and q",
}
MEANS = {
    "dom_*": "difference of means: held-out AUC, interval, null, p, floor, p for all rows, q; in-sample; within prompts"
}
GAIN = {
    "auc_baseline": "held-out AUC of the first of two probes",
    "auc_both": "held-out AUC of the second, which has more to read",
    "added": "the gain",
    "lo": "lower end of its 95% interval, by a jackknife over prompts",
    "hi": "upper end",
    "p": "of no gain, one-sided, by a jackknife over prompts",
    "p_floor": "the smallest p that so many draws could have given",
    "q": "false discovery rate over the rows of the table",
    "within_*": "the same over pairs of samples of one prompt",
}
PAIR = {"block_a": "block of the first cell", "step_a": "its step", "block_b": "of the second", "step_b": "its step"}
BASELINE = "what the first probe reads; the second reads the block too"
SUBSET = "sure, or all with leaning verdicts too"

SAMPLES = ("samples/metadata.jsonl", "samples/*.png", "trajectories/*.safetensors")
NOISED = ("noised/*.safetensors",)
ACTIVATIONS = ("activations/**/*.h5",)
STATISTICS = {"permutations": "permutations", "folds": "folds", "seed": "seed"}

GENERATE = Stage(
    name="generate",
    help="prompts and seeds to images and trajectories",
    command="generate RUN --prompts FILE --seeds 0-11",
    function="generate",
    summary="report.summary.generated",
    needs="prompts, seeds, a model",
    files=SAMPLES,
    settings={
        name: name
        for name in ("prompts", "seeds", "steps", "guidance", "height", "width", "batch_size", "design", "pairs")
    },
    model=True,
    divided=True,
    section="pictures The model and its pictures",
)

LABEL = Stage(
    name="label",
    help="a page on which to paint labels, or labels without looking",
    command="label RUN",
    function="organism.study.auto.label_auto",
    summary="report.summary.labelled",
    needs="a person, or `--auto`",
    reads=SAMPLES[:2],
    files=(LABELS, VALUES_FILE, CLASSES_FILE),
    settings={"labels": "labels"},
    figures=("sheet_*", "rates"),
    section="labels Who says what is bad?",
)

EXTRACT = Stage(
    name="extract",
    help="residual streams at labelled tokens, by replaying trajectories or generating again",
    command="extract RUN --blocks double.1,single.3 --steps 20,12,3",
    function="extract",
    summary="report.summary.extracted",
    needs="a model",
    reads=(*SAMPLES, LABELS, VALUES_FILE),
    tables=(
        Table(
            "analysis/image_statistics.csv",
            {"sample": "sample", "image_sha256": "of its picture", "step": CELL["step"]}
            | dict.fromkeys(
                ("area", "contrast", "brightness", "gradient", "difference", "background_*"),
                "of the clean picture that is predicted there",
            ),
            optional=True,
        ),
    ),
    files=(*ACTIVATIONS, *NOISED),
    settings={
        "tokens": "tokens", "blocks": "blocks", "steps": "read_steps", "stream": "stream", "at": "at",
        "compression": "compression",
    },  # fmt: skip
    model=True,
    divided=True,
)

SURVEY = Stage(
    name="survey",
    help="all blocks at all steps in one pass, with moments alone on disk, and maps of what they tell",
    command="survey RUN",
    function="analysis.map_survey",
    summary="report.summary.surveyed",
    needs="a model",
    reads=(*SAMPLES, LABELS),
    tables=(
        Table(
            "analysis/survey.csv",
            CELL
            | {"sigma": "noise level at the step", "n_prompts": "prompts"}
            | COUNTS
            | DISTANCE
            | {
                "*_p_family": "p adjusted for all cells, after Westfall and Young",
                "ridge_*": "ridge probe of sample means: held-out AUC, interval, null, p, floor, q; within prompts",
                "dom_*": "difference of means, likewise",
                "split_*": "cosine of directions of two halves of the prompts, its null, p and q",
                "agreement": "mean cosine with the directions of all other cells, of the other half",
                "massive_channels": "channels left out, joined by semicolons",
            },
            optional=True,
        ),
    ),
    files=("survey/*.h5", "analysis/survey.safetensors", "analysis/survey.json"),
    settings=STATISTICS,
    model=True,
    version=2,
    always=False,
    divided=True,
    figures=("survey_probe", "survey_distance"),
    designs=("own",),
    section="survey Every block at every step",
)

ANALYZE = Stage(
    name="analyze",
    help="directions, distances and components of every cell, with nulls",
    command="analyze RUN",
    function="analysis.analyze",
    summary="report.summary.analyzed",
    reads=(*ACTIVATIONS, SUBJECT, LABELS),
    tables=(
        Table(
            "analysis/cells.csv",
            CELL
            | {"sigma": "noise level at the step", "n_prompts": "prompts", "n_mixed": MIXED}
            | COUNTS
            | {"dom_student_*": "the same p and q of an AUC of 1/2 whatever the spread: of it over its standard error"}
            | MEANS
            | DISTANCE
            | {
                "c2st_*": "classifier two-sample test: AUC, interval, accuracy, null, p, floor, p for all cells, q",
                "pca_var*": "shares of variance of the first two principal components",
                "massive_channels": "channels left out for their size, joined by semicolons",
                "constant_channels": "channels left out since they do not vary in one class",
                "shared_*": "held-out AUC of the mean of all cells' directions, p, floor, p for all cells, and q",
            }
            | REASON,
        ),
        Table(
            "analysis/samples.csv",
            {
                "sample": "sample", "instance": "its instance, one a row", "prompt": "its prompt",
                "bad": "1 bad, 0 good", "fold": "its fold", "verdict": "verdict on the sample",
            },
        ),
        Table(
            "analysis/cosines.csv",
            PAIR
            | {"cosine": "of their directions", "cosine_split": "of directions from disjoint halves of the prompts"}
            | REASON,
        ),
        Table(
            "analysis/contrasts.csv",
            {"contrast": "local or global: the scope of all faults of the bad samples"}
            | CELL
            | COUNTS
            | MEANS
            | {"cosine_all": "cosine with the direction of all bad samples"}
            | DISTANCE
            | REASON,
            optional=True,
        ),
        Table(
            "analysis/gaussianity.csv",
            CELL
            | {
                "effective_rank": "of the covariance within classes",
                "kurtosis*": "excess kurtosis of leading directions, median and largest",
                "norm_outliers": "share of tokens that are too far out for a Gaussian",
                "bayes_*": "bounds of the Bayes error if the Gaussian model held",
                "llr_auc*": "AUC of the likelihood ratio of single tokens: implied, in-sample, held out",
            }
            | REASON,
            optional=True,
        ),
        Table(
            "analysis/transfer.csv",
            PAIR | {name: SCORE[name] for name in ("auc", "null_*", "p", "p_floor", "p_family", "q")},
            optional=True,
        ),
        Table(
            "analysis/shared.csv",
            {"cells": "cells whose directions are averaged"}
            | {name: SCORE[name] for name in ("auc", "lo", "hi", "null_*", "p", "p_floor")},
            optional=True,
        ),
    ),
    files=("analysis/cells.safetensors",),
    settings=STATISTICS,
    version=6,
    figures=(
        "grid_direction", "grid_distance", "distance_parts", "planes", "components", "cosines", "contrasts",
        "gaussianity", "transfer",
    ),
    designs=("own",),
    section="where Where and when does it know?",
)  # fmt: skip

PAIRED = {
    "n_pairs": "pairs: two samples from one noise",
    "units": "what is independent: pairs, or prompt pairs where there are several",
    "dz*": "mean difference along a direction fitted to other pairs, over its standard deviation; 95% interval",
    "mean*": "mean difference along it, in the units of what is read; 95% interval",
    "auc": "how often a second member lies further along it than a first one, of any pairs of a fold",
    "lo": "lower end of its 95% interval",
    "hi": "upper end",
    "within_*": "the same for the two members of a pair",
    "p": "share of patterns of signs of the pairs that do as well",
    "q": "false discovery rate over the rows of the table",
    "p_family": "p adjusted for all rows of the table",
    "p_floor": "the smallest p that so many pairs allow",
    "massive_channels": "channels left out for their size, joined by semicolons",
}

PAIRS = Stage(
    name="pairs",
    help="two prompts at the same noises: what their difference does, block by block",
    command="pairs RUN",
    function="analysis.pairs.compare_pairs",
    summary="report.paired.compared",
    reads=(*SAMPLES, *ACTIVATIONS, LABELS),
    tables=(
        Table(
            "analysis/pairs.csv",
            CELL
            | {
                "tokens": "tokens of a member that are read, in the mean",
                "beyond_x0*": "dz less that of the predicted clean picture of the step; 95% interval",
            }
            | PAIRED,
        ),
        Table(
            "analysis/pair_pictures.csv",
            {"baseline": "x_t, the noisy latents, or x0, the predicted clean ones", "step": CELL["step"]} | PAIRED,
            optional=True,
        ),
        Table(
            "analysis/pair_verdicts.csv",
            {
                "n": "pairs with a sure verdict on both", "left_out": "the others", "rate_first": "bad among the first",
                "rate_second": "and among the second", "difference": "second less first",
                "lo": "lower end of its 95% interval", "hi": "upper end", "p": "of exchanging members",
            },
            optional=True,
        ),
    ),
    files=("analysis/pairs.safetensors",),
    settings=STATISTICS,
    always=False,
    designs=("paired",),
    figures=("pairs",),
    section="pairs What does the difference between the prompts do?",
)  # fmt: skip

CROSS = {
    "n_good": "good samples with a sure verdict", "n_bad": "bad ones", "n_prompts": "prompts", "n_noises": "noises",
    "auc": "AUC over pairs of one block of prompts and noises, of fits that saw none of them",
    "lo": "lower end of its 95% interval, over prompts and noises", "hi": "upper end",
    "null_*": "mean and standard deviation over labels permuted between prompts and between noises",
    "p": "share of these that do as well", "q": "false discovery rate over the rows of the table",
    "p_family": "p adjusted for all rows of the table", "p_floor": "the smallest p that the null allows",
    "within_*": "the same over pairs of one prompt; labels permuted between noises alone",
}  # fmt: skip

CROSSED = Stage(
    name="crossed",
    help="every prompt at every noise: bad against good, prompt and noise held out at once",
    command="crossed RUN",
    function="analysis.crossing.compare_crossed",
    summary="report.crossed.compared",
    reads=(*SAMPLES, *ACTIVATIONS, LABELS),
    tables=(
        Table(
            "analysis/crossed.csv",
            CELL | CROSS | {"beyond_x0*": "auc less that of the predicted clean picture of the step; 95% interval"},
        ),
        Table(
            "analysis/crossed_pictures.csv",
            {"baseline": "x_t, the noisy latents, or x0, the predicted clean ones", "step": CELL["step"]} | CROSS,
            optional=True,
        ),
    ),
    settings=STATISTICS,
    always=False,
    designs=("crossed",),
    figures=("crossed",),
    section="crossed What holds for prompts and noises that were not seen?",
)

PROBE = Stage(
    name="probe",
    help="linear probes of every cell, beside their baselines",
    command="probe RUN",
    function="probes.probe",
    summary="report.summary.probed",
    reads=(*SAMPLES, *NOISED, *ACTIVATIONS, *(table.path for table in EXTRACT.tables), LABELS),
    tables=(
        Table(
            "analysis/probes.csv",
            {"subset": SUBSET} | CELL | COUNTS | {"n_mixed": MIXED} | SCORE | BALANCED,
        ),
        Table(
            "analysis/baselines.csv",
            {"subset": SUBSET, "baseline": "what it reads", "step": "its step, if any"}
            | COUNTS
            | SCORE
            | BALANCED,
        ),
        Table("analysis/added.csv", CELL | {"baseline": BASELINE} | GAIN),
        Table("analysis/whole_picture.csv", CELL | GAIN | {"auc_both": "held-out AUC of the whole predicted picture"}),
        Table(
            "analysis/conditional.csv",
            CELL
            | {"baseline": BASELINE}
            | {name: GAIN[name] for name in ("auc_baseline", "auc_both", "added")}
            | {"null_*": "mean and standard deviation of the gain of permuted rows"}
            | {"p": "share of permuted rows that gain as much"}
            | {name: SCORE[name] for name in ("p_floor", "p_family", "q", "within_*")},
            optional=True,
        ),
        Table(
            "analysis/chosen.csv",
            {"pairs": "all, or within a prompt"}
            | COUNTS
            | {
                "n_cells": "cells to choose from",
                "auc": "held-out AUC of the cell that the training folds choose",
                "lo": SCORE["lo"],
                "hi": SCORE["hi"],
                "largest": "of the cell that is best on all samples",
                "cells": "the chosen cell of each fold, joined by semicolons",
            },
            optional=True,
        ),
        Table(
            "analysis/pairs_of_cells.csv",
            PAIR
            | {
                "auc_a": "held-out AUC in the first cell",
                "auc_b": "in the second: the next step, the last step, or the best block at the step",
                "difference": "second less first",
                "lo": "lower end of its 95% interval, over prompts",
                "hi": "upper end",
                "p": "of no difference, two-sided; against the best block, of the largest difference from any",
                "q": SCORE["q"],
                "within_*": SCORE["within_*"],
            },
            optional=True,
        ),
        Table(
            "analysis/methods.csv",
            CELL | {"method": "kind of probe", "l2": "its penalty"} | COUNTS | SCORE | BALANCED | REASON,
            optional=True,
        ),
        Table(
            "analysis/calibration.csv",
            CELL
            | {
                "log_odds": "raw, or platt: calibrated inside the training folds",
                "ece": "expected calibration error of stated probabilities",
                "null_*": "what it would be by chance",
                "excess": "what exceeds that",
                "p": "share of chance errors that are as large",
                "p_floor": SCORE["p_floor"],
                "q": "false discovery rate over the rows of a log_odds",
                "slope": "of the logistic regression of verdicts on the log odds",
                "intercept": "of the same",
            },
            optional=True,
        ),
        Table(
            "analysis/reliability.csv",
            CELL
            | {
                "log_odds": "raw or platt",
                "bin": "number of the bin",
                "n": "samples in it",
                "predicted": "mean probability stated there",
                "observed": "share of bad samples there",
                "lo": "lower end of its Wilson interval",
                "hi": "upper end",
            },
            optional=True,
        ),
        Table(
            "analysis/probe_transfer.csv",
            {"fitted_*": "cell in which the probe was fitted", "judged_*": "cell in which it was judged"}
            | {name: SCORE[name] for name in ("auc", "null_*", "p", "p_floor", "p_family", "q")}
            | {"within_auc": "the same over pairs of one prompt"},
            optional=True,
        ),
        Table(
            "analysis/nonlinear.csv",
            CELL
            | {"auc_linear": "held-out AUC of a linear probe of the whole predicted picture"}
            | {
                "auc_baseline": "and of a nonlinear one: boosting and kernels on the picture's axes and statistics",
                "auc_both": "of the nonlinear one with the block beside it", "added": "the gain",
                "null_*": "mean and standard deviation of the gain of permuted rows",
                "p": "share of permuted rows that gain as much", "p_floor": SCORE["p_floor"], "q": GAIN["q"],
                "within_*": GAIN["within_*"],
                "conditional_*": "bits a sample that the block adds, with their 95% interval over prompts",
            },
            optional=True,
        ),
        Table(
            "analysis/information.csv",
            {
                "what": "what is read: the rate of bad alone, the predicted picture, or a block", "step": "its step",
                "usable_*": "usable information, in bits a sample, held out, and its 95% interval over prompts",
                "codelength": "bits that it takes to tell all verdicts, prompt after prompt", "n": "verdicts",
                "compression": "verdicts for each of these bits",
            },
            optional=True,
        ),
        Table(
            "analysis/selectivity.csv",
            CELL
            | {
                "auc_seen": "held-out AUC of the verdicts on new samples of prompts that were seen",
                "control*": "the same of labels that prompts are given at random: mean, standard deviation",
                "auc": "held-out AUC of the verdicts on prompts that were not seen",
                "selectivity": "auc_seen less control",
            },
            optional=True,
        ),
        Table(
            "analysis/block_flat.csv",
            CELL
            | {"features": "numbers that the probe reads: all tokens, each with its place"}
            | COUNTS
            | SCORE
            | BALANCED
            | {
                "added_*": "gain when the block joins the whole predicted picture",
                "instead_*": "gain of the whole predicted picture over the block",
                "conditional_*": "gain over the picture against permuted rows",
            },
            optional=True,
        ),
    ),
    files=("probes/*.safetensors",),
    settings={"permutations": "probe_permutations", "folds": "folds", "seed": "seed", "primary": "primary"},
    version=11,
    figures=("grid_probe", "curves", "added", "methods", "reliability", "probe_transfer", "power"),
    designs=("own",),
    section="honest The honest question: more than meets the eye?",
)

BEYOND = "moved less that of a control, of the pairs that have both: n, 95% interval, two-sided p, q"

PATCH = Stage(
    name="patch",
    help="activations exchanged between samples, cell by cell, with controls: which of them carry a fault",
    command="patch RUN",
    function="report.patching.patch_and_draw",
    summary="report.patching.summary",
    needs="the organism",
    reads=(*SAMPLES, *ACTIVATIONS, "analysis/probes.csv", LABELS),
    tables=(
        Table(
            "analysis/patch.csv",
            {
                "direction": "both; into bad: good donors into bad recipients; into good: the other way",
                "arm": "what is put in: of the donor, its values or its latents; or of a control or window",
            }
            | CELL
            | {
                "n": "pairs", "prompts": "prompts",
                "moved": "how far the judge's probability of bad moves towards the donor's class",
                "moved_*": "its 95% interval over prompts", "p": "of no move, one-sided, by the signs of prompts",
                "p_family": "p adjusted for all cells of the direction and arm", "q": SCORE["q"],
                "tokens": "tokens that are exchanged, in the mean",
                "whole": "the same of the donor's own picture: all that could be moved",
                "judged": "share of verdicts that change towards the donor's class, less those that change away",
                "way*": "share of the way from recipient to donor: of latents at the tokens, and of shapes",
                "outside": "mean change of pixels elsewhere, in levels of 0 to 255",
                "beyond_*": BEYOND,
            },
            optional=True,
        ),
        Table(
            "analysis/patch_first_order.csv",
            CELL
            | {
                "n": "pairs",
                "exact*": "share of the way to the donor that the clean picture predicted at the step goes; interval",
                "estimate*": "the same from its gradient: attribution patching",
            },
            optional=True,
        ),
        Table(
            "analysis/patch_agreement.csv",
            {
                "causal": "a map of effects", "other": "the map beside it", "rho": "rank correlation over cells",
                "lo": "lower end of its 95% interval, from draws of prompts", "hi": "upper end", "cells": "cells",
                "worst": "cells that differ most in rank, and by how much",
            },
            optional=True,
        ),
        Table(
            "analysis/patch_pairs.csv",
            {
                "pair": "its number and direction", "prompt": "its prompt", "recipient": "sample", "donor": "sample",
                "toward": "1 where the donor is bad, -1 where it is good",
                "own": "another sample of the recipient's verdict", "other": "donor of another prompt",
            },
            optional=True,
        ),
    ),
    files=("patch/parts/*.csv", "patch/strips/*.png", "figures/patch.*", "figures/patch_*"),
    settings={"seed": "seed"},
    defaults={"pairs": 200, "controls": 200, "windows": 0},
    model=True,
    always=False,
    designs=("own",),
    section="patch Which activations carry the fault?",
)  # fmt: skip

LENS = Stage(
    name="lens",
    help="what each block would draw if the model stopped there, and in which block a fault appears",
    command="lens RUN",
    function="report.inside.lens_and_draw",
    summary="report.inside.seen_through",
    needs="a model",
    reads=(*SAMPLES, *ACTIVATIONS, LABELS),
    tables=(
        Table(
            "analysis/lens.csv",
            {"kind": "own: the model's output layer on the block; fitted: on what a translator makes of the block"}
            | CELL
            | COUNTS
            | {
                "n_prompts": "prompts",
                "explained": "share of the variance of the model's velocity at the subject's tokens that the block has",
                "explained_*": "its 95% interval over prompts",
            }
            | SCORE
            | {"auc": "AUC of the judge's scores of the block's pictures, over pairs of any prompts"}
            | {
                "change*": "AUC within prompts less that of the block before; interval, two-sided p, q",
                "probe_*": "held-out AUC within prompts of a linear probe of the block",
                "beyond_*": "the judge's AUC within prompts less the probe's; 95% interval",
            },
            optional=True,
        ),
    ),
    files=("analysis/lens.safetensors", "lens/*.safetensors", "figures/lens.*", "figures/lens_*"),
    settings=STATISTICS,
    defaults={"blocks": [], "steps": [], "samples": 200},
    model=True,
    always=False,
    designs=("own",),
    section="lens What would each block draw?",
)

LOOKED_AT = {
    "head": "head of the block, from 0",
    "group": "what is looked at: count words, other words, padding (or text, where words cannot be told), other tokens "
    "of the subject, the rest of the picture",
    "mean*": "share of the attention of the subject's tokens, in the mean over samples; of good and bad, or of members",
}

HEADS = Stage(
    name="heads",
    help="what heads look at from the subject's tokens, and where that differs between good and bad, or prompts",
    command="heads RUN",
    function="report.inside.heads_and_draw",
    summary="report.inside.looked_at",
    needs="a model",
    reads=(*SAMPLES, LABELS),
    tables=(
        Table(
            "analysis/heads.csv",
            CELL
            | LOOKED_AT
            | COUNTS
            | {"n_prompts": "prompts", "direction": "1 where it is larger in bad samples, -1 where it is smaller"}
            | SCORE,
            optional=True,
        ),
        Table("analysis/head_pairs.csv", CELL | LOOKED_AT | PAIRED, optional=True),
    ),
    files=("heads/*.safetensors", "figures/heads.*"),
    settings=STATISTICS,
    defaults={"blocks": [], "steps": [], "samples": 200},
    model=True,
    always=False,
    designs=("own", "paired"),
    section="heads What do heads look at?",
)

FEATURES = Stage(
    name="features",
    help="sparse autoencoders of a block's tokens, and which of their features fire otherwise on bad samples",
    command="features RUN --block single.1",
    function="report.inside.features_and_draw",
    summary="report.inside.taken_apart",
    needs="a model",
    reads=(*SAMPLES, *ACTIVATIONS, LABELS),
    tables=(
        Table(
            "analysis/feature_models.csv",
            {
                "kind": "top_k: the k largest of a token; batch_top_k: k of a token in the mean", "block": "its block",
                "step": "where the velocity was read", "n_samples": "held-out samples whose velocity was read",
                "lost*": "change of the velocity when tokens become their reconstruction, over that when they become "
                "their mean; 95% interval over prompts",
                "features": "of the autoencoder", "k": "active ones of a token", "n_*": "tokens",
                "explained*": "share of variance explained, held out and of the tokens it was fitted to",
                "active": "active features of a held-out token", "dead": "features that no held-out token activates",
            },
            optional=True,
        ),
        Table(
            "analysis/features.csv",
            {
                "feature": "its number", "fires": "share of held-out tokens that activate it",
                "in_samples": "share of held-out samples", "n_prompts": "held-out prompts",
                "direction": "1 where it is larger in bad samples, -1 where it is smaller",
            }
            | COUNTS
            | SCORE
            | {"auc_learnt": "AUC on the samples that it was fitted to"},
            optional=True,
        ),
        Table(
            "analysis/feature_patches.csv",
            {
                "feature": "its number", "rank": "from the most active, one of each sample", "sample": "the sample",
                "bad": "1 bad, 0 good", "step": CELL["step"], "row": "of the token", "col": "of the token",
                "activity": "of the feature there",
            },
            optional=True,
        ),
        Table(
            "analysis/feature_effects.csv",
            {
                "what": "ablate: its part taken out; more, less: ten times its usual size added or taken off",
                "feature": "its number", "control": "whether it is one of those at random that fire as often",
                "n": "samples", "before": "malformed without", "after": "malformed with",
                "difference": "after less before", "lo": "lower end of its 95% interval", "hi": "upper end",
                "p": "of exchanging the two, prompt by prompt", "control_p": "the largest p against a control",
                "moved": "mean change of a pixel, of 1", "fires": "share of samples that activate it",
            },
            optional=True,
        ),
    ),
    files=("features/*/cfg.json", "features/*/sae_weights.safetensors", "figures/features.*", "figures/feature_*"),
    settings={"permutations": "permutations", "seed": "seed"},
    defaults={"block": None, "steps": [], "wide": 4, "k": 16, "passes": 10, "samples": 64},
    model=True,
    always=False,
    designs=("own",),
    section="features What are the streams made of?",
)

COMMIT = Stage(
    name="commit",
    help="when each sample was decided, from its trajectory",
    command="commit RUN",
    function="report.commitment.commit_and_draw",
    summary="report.commitment.summary",
    needs="a model",
    reads=(*SAMPLES, LABELS),
    tables=(
        Table(
            "analysis/commitment.csv",
            {
                "sample": "sample", "prompt": "its prompt", "bad": "1 bad, 0 good", "region": "what is looked at",
                "unit": "of the tolerance", "tolerance": "change from the end that still counts as decided",
                "index": "first index from which it stays decided, from 0, the noisiest",
                "index_at_latest": "the same without the requirement that it stays so",
                "step": "what remains at that index", "sigma": "noise level there", "snr_db": "signal to noise there",
                "literal_step": "step by the definition taken literally", "found": "steps at which the shape was found",
                "steps": "of the generation",
            }
            | REASON,
            optional=True,
        ),
        Table(
            "analysis/commitment_summary.csv",
            {
                "region": "what is looked at", "unit": "of the tolerance", "tolerance": "as above",
                "group": "all, good or bad", "n": "samples with the shape at the end", "missing": "those without",
                "undecided": "those that change to the end", "from_the_start": "those that never change",
                "median_*": "step and noise level at which half are decided", "steps_*": "95% interval of that step",
                "snr_db": "signal to noise there", "difference": "bad minus good of the same prompt, in steps",
                "difference_*": "its interval over prompts", "p": "its permutation test",
            }
            | REASON,
            optional=True,
        ),
    ),
    files=("analysis/commitment.safetensors", "figures/commitment.*"),
    settings={"seed": "seed"},
    defaults={"samples": 200},
    version=2,
    model=True,
    always=False,
    section="commit When is it decided?",
)  # fmt: skip

TRIAGE = Stage(
    name="triage",
    help="what early looks would have saved on a labelled run",
    command="triage RUN",
    function="evaluation.early_looks.early_looks",
    summary="report.summary.triaged",
    needs="a model",
    reads=(*SAMPLES, LABELS),
    tables=(
        Table(
            "analysis/triage.csv",
            {
                "feature": "what is looked at", "step": "when", "way": "plain, threshold or best of so many",
                "attempts": "seeds tried at most", "within_auc": "held-out AUC of the look within prompts",
                "auc_*": "its interval", "rate": "malformed among those kept", "lo": "lower end of its 95% interval",
                "hi": "upper end", "cost": "calls for a picture, over a plain one's",
                "calls_per_good": "calls for a good one",
                "ratio": "of the rate to the plain one",
            },
            optional=True,
        ),
    ),
    defaults={"steps": [19, 18, 16, 14, 12, 10], "blocks": [], "cost": 2.0},
    model=True,
    always=False,
    designs=("own",),
    section="triage What would an early look save?",
)  # fmt: skip

MEND = Stage(
    name="mend",
    help="the experiment on the organism: every arm, paired and controlled",
    command="mend RUN",
    function="report.experiment.mend_and_draw",
    summary="report.experiment.summary",
    needs="the organism",
    reads=(*SAMPLES, LABELS, "analysis/commitment_summary.csv"),
    tables=(
        Table(
            "mend/arms.csv",
            {
                "arm": "what was done", "family": "plain, triage, steering, guidance or control",
                "before": "malformed of the baseline", "after": "malformed of the arm",
                "difference": "after minus before",
                "q": "false discovery rate of p over all arms but controls",
                "control_p": "the largest p against one of its controls", "kernel_distance": "to renders",
                "kd_*": "its interval, and its ratio to the baseline's", "diversity": "over the baseline's",
                "calls*": "of the model, for a picture and for a good one", "seconds": "for a picture",
                "memory": "the most MB that a batch took", "share": "mean length of what was added",
                "*": "numbers of the paired comparison, and how far the looks of the pictures moved",
            },
            optional=True,
        ),
    ),
    files=("figures/mend.*", "figures/mend_*"),
    defaults={
        "seeds": 13, "pilot_seeds": 3, "blocks": ["single.3", "single.1", "double.1"], "window": None, "names": None
    },
    model=True,
    always=False,
    section="mend Can it be mended?",
)  # fmt: skip

ANATOMY = Stage(
    name="anatomy",
    help="are the hands of pictures plausible, and how far can that verdict be trusted",
    command="anatomy score RUN/samples --out RUN/anatomy",
    function="anatomy.judge.stage.score_run",
    summary="report.summary.scored",
    reads=SAMPLES[:2],
    tables=(
        Table(
            "anatomy/scores.csv",
            {
                "path": "the picture", "hand": "number of the hand in it; 0 where none was found",
                "outcome": "plausible, implausible, cannot tell or undetected", "score": "higher is more plausible",
                "reasons": "what is wrong", "found_by": "how it was found", "presence": "of a hand, by the network",
                "side": "left or right", "x": "centre", "y": "centre", "size": "in pixels", "rotation": "in degrees",
                "count": "raised fingers", "count_probability": "of that count", "subscore_*": "of the method",
                "notes": "what was done to the picture on reading",
            },
            optional=True,
        ),
    ),
    files=("anatomy/scores.json", "anatomy/skipped.csv", "anatomy/sheets/*.png"),
    always=False,
    section="anatomy Are the hands plausible?",
)  # fmt: skip

VALUE = {
    "value": "what is told: a value from the rest, all (the mean over values), or order (the higher from the lower)",
    "n_of": "samples of that value", "n": "samples", "n_prompts": "prompts in which there is a pair",
    "n_pairs": "pairs of one prompt that are compared",
    "auc": "held-out AUC over pairs of samples of one prompt; of order, pairs that are in order",
    "lo": "lower end of its 95% interval, by a jackknife over prompts", "hi": "upper end",
    "null_*": "mean and standard deviation over values permuted inside prompts",
    "p": "share of these that do as well", "p_floor": SCORE["p_floor"], "p_family": SCORE["p_family"],
    "q": SCORE["q"],
}  # fmt: skip

VALUES = Stage(
    name="values",
    help="a label of several values: each told from the rest, and their order, within prompts",
    command="values RUN",
    function="probes.values.probe_values",
    summary="report.values.told",
    reads=(*SAMPLES[:2], *ACTIVATIONS, *(table.path for table in EXTRACT.tables), SUBJECT, LABELS, VALUES_FILE),
    tables=(
        Table("analysis/value_probes.csv", CELL | VALUE, optional=True),
        Table(
            "analysis/value_confusion.csv",
            CELL | {"value": "value of the label", "said": "value that held-out probes score highest", "n": "samples"},
            optional=True,
        ),
        Table(
            "analysis/value_baselines.csv",
            {"baseline": "image: plain statistics of the predicted clean picture", "step": CELL["step"]} | VALUE,
            optional=True,
        ),
    ),
    settings=STATISTICS,
    always=False,
    designs=("own",),
    figures=("values", "value_confusion"),
    section="values Which of several values?",
)

CLASS = {
    "class": "what is told: the subject, or a class of classes.csv", "n": "pictures with tokens of it",
    "n_prompts": "their prompts", "share": "share of a picture's tokens that are of it, the mean",
    "auc": "held-out chance that a token of it scores above another of its picture, the mean over pictures",
    "lo": "lower end of its 95% interval, by a jackknife over prompts", "hi": "upper end",
    "match": "correlation of scores and mask over a picture's tokens, the mean: what is tested",
    "null_*": "mean and standard deviation of it over masks exchanged between pictures of a prompt",
    "p": "share of these that do as well", "p_floor": SCORE["p_floor"], "p_family": SCORE["p_family"],
    "q": SCORE["q"],
}  # fmt: skip

CLASSES = Stage(
    name="classes",
    help="classes of tokens: each told from the other tokens of its picture",
    command="classes RUN",
    function="probes.token_classes.probe_classes",
    summary="report.token_classes.told",
    reads=(*SAMPLES, *ACTIVATIONS, SUBJECT, LABELS, CLASSES_FILE),
    tables=(
        Table(
            "analysis/class_probes.csv",
            CELL | CLASS | {
                "place_auc": "the same of the place alone: how many pictures of other prompts have it there",
                "gain*": "auc less that, the mean over pictures, with its 95% interval",
            },
            optional=True,
        ),
        Table(
            "analysis/class_baselines.csv",
            {
                "baseline": "place, or predicted: the clean latents predicted for a token and its eight neighbours",
                "step": f"{CELL['step']}; none for the place",
            } | CLASS,
            optional=True,
        ),
    ),
    settings=STATISTICS,
    always=False,
    designs=("own",),
    figures=("classes",),
    section="classes Which tokens are of a class?",
)  # fmt: skip

INSIDE = (PATCH, LENS, HEADS, FEATURES)
"""Those that look inside the blocks, and need the model."""

REPORT = Stage(
    name="report",
    help="figures, and one HTML page with what was found",
    command="report RUN",
    function="report.page.report",
    summary="report.summary.reported",
    reads=(
        "run.yaml", SUBJECT, *SAMPLES[:2], LABELS, *ANALYZE.writes, *PROBE.writes, *PAIRS.writes, *CROSSED.writes,
        *(
            table.path
            for stage in (SURVEY, VALUES, CLASSES, *INSIDE, COMMIT, TRIAGE, MEND, ANATOMY)
            for table in stage.tables
        ),
        "figures/commitment.png", "figures/mend*.png", "figures/patch*.png", "figures/lens*.png",
        "figures/heads.png", "figures/feature*.png",
    ),
    files=(
        "report.html", "figures/overview.*",
        *(
            f"figures/{name}.*"
            for stage in (LABEL, SURVEY, ANALYZE, PAIRS, CROSSED, PROBE, VALUES, CLASSES)
            for name in stage.figures
        ),
    ),
    figures=("overview",),
    sources=("stages.py", "report/*", "figures/*.py"),
)  # fmt: skip  # fmt: skip

STAGES = (
    GENERATE, LABEL, EXTRACT, SURVEY, ANALYZE, PAIRS, CROSSED, PROBE, VALUES, CLASSES, *INSIDE, COMMIT, TRIAGE, MEND,
    ANATOMY, REPORT,
)  # fmt: skip
"""In the order in which `study` runs them."""

TABLES: dict[str, tuple[Table, Stage]] = {table.name: (table, stage) for stage in STAGES for table in stage.tables}
"""Every table by its name, with the stage that writes it."""
