"""How the prompts and the noises of a run cross: which samples may be learnt from, and judged on, beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from ..errors import HandscopeError

if TYPE_CHECKING:
    import pandas as pd

DESIGNS = ("own", "paired", "crossed")
"""Each prompt has noises of its own; each noise stands under two prompts; every prompt stands at every noise."""


@dataclass(frozen=True)
class Design:
    """How prompts and noises cross.

    Attributes
    ----------
    kind : str, one of `DESIGNS`
    pairs : tuple of two prompts each, in the order in which they were drawn; empty unless `kind` is paired
    """

    kind: str
    pairs: tuple[tuple[str, str], ...] = ()


def design_of(samples: pd.DataFrame, where: object = "the run") -> Design:
    """The design of samples, seen from which of them have the same noise.

    Parameters
    ----------
    samples : DataFrame with prompt and noise_sha256; a noise that is not known is an empty text, and shared with none
    where : names the run in the message

    Raises
    ------
    HandscopeError
        Noises are shared in part, so that neither folds of prompts nor those of noises would hold out what they test.

    Notes
    -----
    Two prompts at the same noises are a pair, not a crossing.
    """
    known = samples[samples["noise_sha256"] != ""]
    prompts_of = known.drop_duplicates(["noise_sha256", "prompt"]).groupby("noise_sha256", sort=False)["prompt"]
    together = prompts_of.agg(tuple)
    sizes, prompts = together.map(len), known["prompt"].nunique()
    if (sizes <= 1).all():
        return Design("own")
    pairs = tuple(dict.fromkeys(together))
    if (sizes == 2).all() and 2 * len(pairs) == prompts:
        return Design("paired", pairs)
    if (sizes == prompts).all():
        return Design("crossed")
    raise HandscopeError(
        f"{int((sizes > 1).sum())} of {len(sizes)} initial noises of {where} were drawn with more than one prompt "
        f"each, and neither with two prompts that share all their noises nor with all {prompts}: what is learnt of a "
        f"noise would be known in held-out prompts too. Generate with one design of {', '.join(DESIGNS)}."
    )


def noise_owners(
    prompts: Sequence[str], design: str | None, pairs: Iterable[Sequence[str]] = ()
) -> dict[str, str | None]:
    """Whose noises each prompt is drawn from: a prompt's, or None where a seed is the same noise for every prompt.

    Raises
    ------
    HandscopeError
        The pairs do not hold every prompt once, or there are none where there are more than two prompts.
    """
    pairs = [tuple(pair) for pair in pairs]
    if design not in (None, *DESIGNS):
        raise HandscopeError(f"Expected a design of {', '.join(DESIGNS)}, found {design!r}.")
    if pairs and design not in (None, "paired"):
        raise HandscopeError(f"Pairs of prompts are of the design paired, and the design is {design}: leave one out.")
    if pairs or design == "paired":
        pairs = pairs or [tuple(prompts)]
        if any(len(pair) != 2 for pair in pairs):
            raise HandscopeError(
                f"Expected pairs of two prompts, found one of {next(len(pair) for pair in pairs if len(pair) != 2)}: "
                "list the pairs, [first, second] each."
            )
        every = [prompt for pair in pairs for prompt in pair]
        if sorted(every) != sorted(set(prompts)):
            odd = sorted(set(every) ^ set(prompts)) or [prompt for prompt in every if every.count(prompt) > 1]
            raise HandscopeError(
                f"Expected every prompt in one pair, found otherwise for {odd[0]!r}: a prompt in two pairs would bind "
                "them to each other."
            )
        return {prompt: first for first, second in pairs for prompt in (first, second)}
    return dict.fromkeys(prompts, None) if design == "crossed" else {prompt: prompt for prompt in prompts}


def difference(first: str, second: str) -> list[tuple[str, str]]:
    """The words in which two prompts differ, stretch by stretch.

    >>> difference("two cats on a mat", "three cats on a mat")
    [('two', 'three')]
    """
    a, b = first.split(), second.split()
    found = SequenceMatcher(None, a, b, autojunk=False).get_opcodes()
    return [(" ".join(a[i:j]), " ".join(b[k:m])) for kind, i, j, k, m in found if kind != "equal"]
