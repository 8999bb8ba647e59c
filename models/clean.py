"""The clean latents that a model predicts from noisy ones, whatever its output is."""

import math

from torch import Tensor

from ..errors import HandscopeError

KINDS = ("flow", "epsilon", "v")


def predicted_clean(
    noisy: Tensor, output: Tensor, kind: str, noise: float | Tensor, signal: float | Tensor | None = None
) -> Tensor:
    """Predicted clean latents, in the shape of `noisy`.

    The noisy latents are ``signal * clean + noise * epsilon``.

    Parameters
    ----------
    noisy, output : Tensor of one shape
        What went into the model and what came out.
    kind : str
        What the model predicts: ``flow``, the velocity epsilon - clean of flow matching (FLUX, SD3); ``epsilon``; or
        ``v``, the velocity of Salimans and Ho 2022 (signal * epsilon - noise * clean).
    noise : float, or Tensor of no dimension
        The share of noise: sigma of flow matching, or sqrt(1 - alphas_cumprod).
    signal : float, optional
        By default 1 - noise for flow, sqrt(1 - noise²) otherwise.

    Raises
    ------
    HandscopeError
        The kind is not known, or epsilon is predicted from noise without signal.
    """
    if kind not in KINDS:
        raise HandscopeError(f"Expected the kind of prediction to be one of {', '.join(KINDS)}, found {kind!r}.")
    if kind == "flow":
        # signal * clean + noise * (output + clean) = noisy
        moved = noisy - noise * output
        return moved if signal is None else moved / (signal + noise)
    if signal is None:
        signal = _signal(noise)
    if kind == "v":
        return (signal * noisy - noise * output) / (signal * signal + noise * noise)
    if signal == 0:
        raise HandscopeError("There is no signal in pure noise: its clean latents cannot be told from epsilon.")
    return (noisy - noise * output) / signal


def noised(clean: Tensor, epsilon: Tensor, kind: str, noise: float | Tensor) -> Tensor:
    """Noisy latents of a share of noise, ``signal * clean + noise * epsilon``: what `predicted_clean` undoes.

    Parameters
    ----------
    clean, epsilon : Tensor of one shape
    kind, noise : as in `predicted_clean`
    """
    signal = 1 - noise if kind == "flow" else _signal(noise)
    return signal * clean + noise * epsilon


def stepped(noisy: Tensor, output: Tensor, kind: str, noise: float | Tensor, later: float | Tensor) -> Tensor:
    """Latents with `later` as their share of noise, by one deterministic step: of Euler for flow, else of DDIM.

    Parameters
    ----------
    noisy, output, kind, noise : as in `predicted_clean`
    """
    if kind == "flow":
        return noisy + (later - noise) * output
    clean = predicted_clean(noisy, output, kind, float(noise))
    epsilon = (noisy - _signal(noise) * clean) / noise
    return _signal(later) * clean + later * epsilon


def clean_between(noisy: Tensor, less: Tensor, kind: str, noise: float | Tensor, later: float | Tensor) -> Tensor:
    """The clean latents that were predicted of `noisy`, from the latents that a step of `stepped` took them to.

    Parameters
    ----------
    noisy, less : Tensor of one shape
        Latents before and after the step.
    kind : str
        As in `predicted_clean`.
    noise, later : float
        Their shares of noise.
    """
    if kind == "flow":
        return predicted_clean(noisy, velocity_between(noisy, less, noise, later), kind, noise)
    return (later * noisy - noise * less) / (later * _signal(noise) - noise * _signal(later))


def velocity_between(noisy: Tensor, less: Tensor, noise: float | Tensor, later: float | Tensor) -> Tensor:
    """The velocity of flow matching: the Euler step from `noisy` to `less` solved for it."""
    return (less - noisy) / (later - noise)


def decibels(noise: float, signal: float | None = None) -> float:
    """The signal-to-noise ratio of latents ``signal * clean + noise * epsilon``, of unit variance both, in decibels.

    >>> round(decibels(0.5), 2), round(decibels(0.779), 1)
    (0.0, -10.9)

    Infinite without noise, minus infinite without signal.
    """
    signal = 1 - noise if signal is None else signal
    if signal == 0 or noise == 0:
        return math.inf if noise == 0 else -math.inf
    return 20 * math.log10(signal / noise)


def _signal(noise: float | Tensor) -> float:
    """The share of the picture where squares add up to 1."""
    return math.sqrt(max(0.0, 1 - float(noise) ** 2))
