"""Donors that are drawn for their recipients: of the same noise but inside the tokens, or of another prompt's words.

For each recipient some are drawn; the first that the judge calls other than the recipient is its donor, and the first
that it calls alike is the control beside it, so that both are made in one way.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import HandscopeError
from ..files import write_csv
from ..guidance.interchange import Drawn, Interchange
from ..labeling.database.labels import Labels
from ..labeling.table import sample_table
from ..progress import Progress, quiet
from ..run.folder import Run
from ..run.prompts import own_seed
from ..run.trajectory import Trajectory
from .patching import Look, Masks, Samples

DRAWN = ("inside", "prompt")
"""Kinds of donors: the recipient's noise with another inside its tokens; another prompt from the recipient's noise."""
FIRST_SEED = 5000
"""Of the noises inside: of no sample that a study draws."""

TokensOf = Callable[[NDArray[np.uint8], int, int], NDArray[np.bool_]]
"""From a picture and the rows and columns of its token grid to the tokens of what is looked at, (rows, columns)."""


class DrawnSamples(Samples):
    """A run's samples and the donors in a folder, by name."""

    def __init__(self, run: Run, folder: Path) -> None:
        super().__init__(run)
        self.folder = folder

    @cached_property
    def table(self) -> pd.DataFrame:
        """What ``donors.csv`` says, by name."""
        return pd.read_csv(self.folder / "donors.csv").set_index("name")

    def prompt(self, sample: str) -> str:
        return str(self.table.loc[sample, "prompt"]) if sample in self.table.index else super().prompt(sample)

    def trajectory(self, sample: str) -> Trajectory:
        if sample not in self.table.index:
            return super().trajectory(sample)
        return Trajectory.load(self.folder / "donors" / f"{sample}.safetensors", {"sample": sample})

    def tokens(self, sample: str) -> Masks:
        if sample not in self.table.index:
            return super().tokens(sample)
        return np.array([one == "1" for one in self.table.loc[sample, "tokens"][1:]])


def drawn_pairs(
    interchange: Interchange,
    run: Run,
    folder: Path,
    kind: str,
    pairs: int,
    look: Look,
    tokens_of: TokensOf,
    tries: int = 4,
    seed: int = 0,
    progress: Progress = quiet,
) -> tuple[pd.DataFrame, DrawnSamples]:
    """Draw donors for surely good and bad samples in turn, prompt after prompt.

    Parameters
    ----------
    folder : Path
        Gets ``donors/``, a trajectory each, ``donors.csv`` and ``pairs.csv``; where these are there, nothing is drawn.
    kind : str
        One of `DRAWN`.
    pairs : int
        Recipients at most; those of which no try is judged otherwise are left out.
    tries : int
        Donors that are drawn for each.

    Returns
    -------
    DataFrame, as of `handscope.evaluation.patch_pairs.stored_pairs`; and where its samples are

    Raises
    ------
    HandscopeError
        The kind is not known, or no donor is judged otherwise than its recipient.
    """
    if kind not in DRAWN:
        raise HandscopeError(f"Expected donors of a kind among {', '.join(DRAWN)}, found {kind!r}.")
    samples, there = DrawnSamples(run, folder), folder / "pairs.csv"
    if there.exists():
        return pd.read_csv(there, keep_default_na=False).head(pairs), samples
    table = sample_table(run)
    table = table[table["verdict"].isin(("good", "bad"))]
    shuffled = table.iloc[np.random.default_rng([seed, 17]).permutation(len(table))]
    turn = shuffled.groupby(["prompt", "verdict"]).cumcount()
    chosen = shuffled.assign(turn=turn).sort_values(["turn", "prompt", "verdict"], kind="stable").head(pairs)
    labelled = set(Labels(run.labels_path).current())
    own, rows, donors = Samples(run), [], []
    (folder / "donors").mkdir(parents=True, exist_ok=True)
    for number, recipient in enumerate(chosen[chosen["sample"].isin(labelled)].itertuples()):
        progress(f"donors ({kind})", number, len(chosen))
        others = sorted(set(table["prompt"]) - {recipient.prompt})
        words = [others[(number + i) % len(others)] for i in range(tries)] if kind == "prompt" else None
        made = _drawn_for(interchange, own, recipient.sample, words, tries)
        pictures = interchange.sampling.images(made.final)
        bad = look(pictures, made.prompts).bad > 0.5
        names = [f"{recipient.sample}-{kind}{i}" for i in range(tries)]
        grid = interchange.model.grid(*pictures.shape[1:3])
        found = {}
        for key, wanted in (("donor", recipient.verdict != "bad"), ("own", recipient.verdict == "bad")):
            places = np.flatnonzero(bad == wanted)
            found[key] = names[places[0]] if len(places) else ""
            for i in places[:1]:
                made.trajectories[i].save(folder / "donors" / f"{names[i]}.safetensors", {"sample": names[i]})
                tokens = "t" + "".join(map(str, tokens_of(pictures[i], *grid).flatten().astype(int)))
                donors.append({"name": names[i], "prompt": made.prompts[i], "bad": int(bad[i]), "tokens": tokens})
        if found["donor"]:
            toward = 1 if recipient.verdict == "good" else -1
            rows.append({"pair": f"{number:03d}{'-+'[toward > 0]}", "prompt": recipient.prompt, **found,
                         "recipient": recipient.sample, "toward": toward, "other": ""})  # fmt: skip
    progress(f"donors ({kind})", len(chosen), len(chosen))
    if not rows:
        raise HandscopeError(f"None of {tries} donors of any of {len(chosen)} recipients is judged otherwise: ask for "
                             "more recipients, or more tries.")  # fmt: skip
    write_csv(folder / "donors.csv", pd.DataFrame(donors))
    made_pairs = pd.DataFrame(rows)[["pair", "prompt", "recipient", "donor", "toward", "own", "other"]]
    write_csv(there, made_pairs)
    return made_pairs, samples


def _drawn_for(
    interchange: Interchange, samples: Samples, sample: str, words: list[str] | None, tries: int
) -> Drawn:
    """Donors for a sample: of other words from its noise; without words, of other noises inside its tokens."""
    several = samples.drawn([sample] * tries)
    if words is not None:
        return interchange.drawn(words, several.at(interchange.steps))
    seeds = [own_seed(several.prompts[0], FIRST_SEED + i) for i in range(tries)]
    noise = interchange.renoised(several, seeds, np.stack([samples.tokens(sample)] * tries))
    return interchange.drawn(several.prompts, noise)
