"""Text embeddings: of each prompt once, before the transformer needs the device."""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import HandscopeError
from ..progress import Progress, quiet

HELD = 2**30
"""Bytes of embeddings kept in memory; what comes after goes to a temporary file a prompt (4.2 MB with FLUX's T5)."""


class Encoded:
    """Embeddings of prompts, on the CPU, with the bits that the pipeline makes of each prompt alone.

    >>> encoded = model.encode(["an open hand", "a fist"])                       # doctest: +SKIP
    >>> text, pooled, text_ids = encoded.batch(["a fist"], "cuda", torch.bfloat16)      # doctest: +SKIP
    >>> text.shape, pooled.shape, text_ids.shape                                 # doctest: +SKIP
    (torch.Size([1, 512, 4096]), torch.Size([1, 768]), torch.Size([512, 3]))
    """

    def __init__(self) -> None:
        self._prompts: dict[str, tuple[Tensor | Path, Tensor]] = {}
        self._held = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._shape, self._dtype = torch.Size(), torch.float32

    def __contains__(self, prompt: object) -> bool:
        return prompt in self._prompts

    def __len__(self) -> int:
        return len(self._prompts)

    def put(self, prompt: str, text: Tensor, pooled: Tensor) -> None:
        """Add one prompt: the second encoder's output (tokens, width) and the first one's pooled output (width,).

        Raises
        ------
        HandscopeError
            It goes to disk, and the disk is full.
        """
        text = text.cpu()
        self._shape, self._dtype = text.shape, text.dtype
        self._held += text.nbytes
        self._prompts[prompt] = (text if self._held <= HELD else self._written(text), pooled.cpu())

    def batch(
        self, prompts: Sequence[str], device: str | torch.device, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What a call of a FLUX transformer takes for these prompts, which may repeat.

        Returns
        -------
        text : Tensor of shape (n, tokens, width)
        pooled : Tensor of shape (n, pooled width)
        text_ids : Tensor of shape (tokens, 3)
            Zeros: places in the text play no part.

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
        rows = {prompt: self._read(prompt).to(device, dtype) for prompt in dict.fromkeys(prompts)}
        text = torch.stack([rows[prompt] for prompt in prompts])
        pooled = torch.stack([self._prompts[prompt][1] for prompt in prompts]).to(device, dtype)
        return text, pooled, torch.zeros(text.shape[1], 3).to(device, dtype)

    def _written(self, text: Tensor) -> Path:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="handscope-prompts-")
        path = Path(self._folder.name) / str(len(self))
        try:
            path.write_bytes(text.contiguous().view(torch.uint8).numpy().tobytes())
        except OSError as error:
            raise HandscopeError(
                f"The embeddings of {len(self) + 1} prompts do not fit into {self._folder.name} ({error.strerror}): "
                "free some space, or name another folder in the environment variable TMPDIR."
            ) from error
        return path

    def _read(self, prompt: str) -> Tensor:
        text = self._prompts[prompt][0]
        if isinstance(text, Tensor):
            return text
        return torch.frombuffer(bytearray(text.read_bytes()), dtype=self._dtype).view(self._shape)


@torch.no_grad()
def encode(
    pipe: Any,
    prompts: Iterable[str],
    into: Encoded,
    device: torch.device,
    max_sequence_length: int,
    progress: Progress = quiet,
) -> bool:
    """Encode the prompts that `into` does not have yet; whether there were any.

    One prompt at a time, so that its bits do not depend on its company.
    """
    new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in into]
    for number, prompt in enumerate(new, 1):
        text, pooled, _ = pipe.encode_prompt(
            prompt=[prompt], prompt_2=None, device=device, max_sequence_length=max_sequence_length
        )
        into.put(prompt, text[0], pooled[0])
        progress("encode", number, len(new))
    return bool(new)
