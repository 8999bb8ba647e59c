"""Text embeddings: of each prompt once, before the transformer needs the device."""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from ..errors import HandscopeError
from ..progress import Progress, quiet
from .family import Family

HELD = 2**30
"""Bytes of embeddings kept in memory; what comes after goes to a temporary file a prompt (4.2 MB with FLUX's T5)."""


class Encoded:
    """Embeddings of prompts, on the CPU, with the bits that the pipeline makes of each prompt alone.

    >>> encoded = model.encode(["an open hand", "a fist"])                       # doctest: +SKIP
    >>> found = encoded.batch(["a fist"], "cuda", torch.bfloat16)                # doctest: +SKIP
    >>> {name: tuple(tensor.shape) for name, tensor in found.items()}            # doctest: +SKIP
    {'text': (1, 512, 4096), 'pooled': (1, 768)}

    Attributes
    ----------
    cut : set of str
        Prompts that are longer than the text that the model reads: their last word changes nothing.
    """

    def __init__(self) -> None:
        self.cut: set[str] = set()
        self._prompts: dict[str, dict[str, Tensor] | Path] = {}
        self._held = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._encoders = ""

    def __contains__(self, prompt: object) -> bool:
        return prompt in self._prompts

    def __len__(self) -> int:
        return len(self._prompts)

    def made_by(self, encoders: str) -> None:
        """Forget everything where other text encoders than before are at work.

        Parameters
        ----------
        encoders : str
            What tells them from others.
        """
        if encoders != self._encoders:
            self._prompts.clear()
            self._held, self._folder, self._encoders = 0, None, encoders

    def put(self, prompt: str, embeddings: Mapping[str, Tensor]) -> None:
        """Add one prompt: its embeddings by name, without a batch axis.

        Raises
        ------
        HandscopeError
            It goes to disk, and the disk is full.
        """
        kept = {name: tensor.cpu().contiguous() for name, tensor in embeddings.items()}
        self._held += sum(tensor.nbytes for tensor in kept.values())
        self._prompts[prompt] = kept if self._held <= HELD else self._written(kept)

    def batch(self, prompts: Sequence[str], device: str | torch.device, dtype: torch.dtype) -> dict[str, Any]:
        """The embeddings of prompts, which may repeat, by name: each of shape (n, ...).

        Where prompts differ in their numbers of tokens, a list of n tensors instead. What is no floating point number,
        such as a mask, keeps its dtype.

        Raises
        ------
        HandscopeError
            A prompt was not encoded.
        """
        for prompt in prompts:
            if prompt not in self:
                raise HandscopeError(
                    f"The prompt {prompt!r} is not among the {len(self)} that were encoded: "
                    "give it to model.encode first."
                )
        rows = {
            prompt: {
                name: tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype)
                for name, tensor in self._read(prompt).items()
            }
            for prompt in dict.fromkeys(prompts)
        }
        return {name: _stacked([rows[prompt][name] for prompt in prompts]) for name in rows[prompts[0]]}

    def embeddings(self, prompt: str) -> dict[str, Tensor]:
        """The embeddings of one prompt by name, without a batch axis."""
        return self._read(prompt)

    def digest(self, prompt: str) -> str:
        """A hash of what the model sees of a prompt: of its embeddings, without a batch axis."""
        said = hashlib.sha256()
        for name, tensor in sorted(self._read(prompt).items()):
            said.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            said.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return said.hexdigest()[:32]

    def _written(self, embeddings: dict[str, Tensor]) -> Path:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="handscope-prompts-")
        path = Path(self._folder.name) / str(len(self))
        try:
            path.write_bytes(save(embeddings))
        except OSError as error:
            raise HandscopeError(
                f"The embeddings of {len(self) + 1} prompts do not fit into {self._folder.name} ({error.strerror}): "
                "free some space, or name another folder in the environment variable TMPDIR."
            ) from error
        return path

    def _read(self, prompt: str) -> dict[str, Tensor]:
        kept = self._prompts[prompt]
        return load(kept.read_bytes()) if isinstance(kept, Path) else kept


def _stacked(tensors: list[Tensor]) -> Tensor | list[Tensor]:
    return torch.stack(tensors) if len({tensor.shape for tensor in tensors}) == 1 else tensors


@torch.no_grad()
def encode(
    family: Family,
    pipe: Any,
    prompts: Iterable[str],
    into: Encoded,
    device: torch.device,
    progress: Progress = quiet,
) -> bool:
    """Encode the prompts that `into` does not have yet; whether there were any.

    One prompt at a time, so that its bits do not depend on its company. A prompt that may be longer than the text that
    the model reads is encoded once more without its last word: where that changes nothing, it is cut.
    """
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in into]
    for number, prompt in enumerate(new, 1):
        embeddings = family.encode(pipe, prompt, device)
        into.put(prompt, embeddings)
        if _may_be_cut(prompt, family.text_length(pipe)):
            shorter = family.encode(pipe, prompt.rsplit(None, 1)[0], device)
            if all(torch.equal(embeddings[name], shorter[name]) for name in embeddings):
                into.cut.add(prompt)
        progress("encode", number, len(new))
    return bool(new)


def _may_be_cut(prompt: str, text_length: int) -> bool:
    """Whether a prompt of several words has more bytes than the model reads tokens, none of which is shorter."""
    return len(prompt.encode()) >= text_length and len(prompt.split()) > 1
