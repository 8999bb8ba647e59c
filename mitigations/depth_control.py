"""A ControlNet that is told depth: a `Learner` whose pictures have a depth image each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import HandscopeError
from ..models.model import Model
from ..progress import Progress, quiet
from .learners import LoRA, check_plain, saved_folder
from .painting import class_of
from .pictures import Captioned, latents_of

SHARED = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids", "txt_ids", "guidance")
"""Arguments of the transformer's call that the network is called with too."""


class DepthControl:
    """A ControlNet (Zhang et al. 2023, arXiv 2302.05543) that begins as the model's first blocks and adds nothing.

    Parameters
    ----------
    depths : sequence of paths
        One image a picture, in the pictures' order; nearer is brighter.
    double, single : int
        Blocks of each kind.
    height, width : int
        In pixels, as the pictures are trained on.

    Raises
    ------
    HandscopeError
        The family has no ControlNet here, or something acts in the model already.
    """

    def __init__(
        self,
        model: Model,
        depths: Sequence[Path],
        height: int,
        width: int,
        double: int = 1,
        single: int = 0,
        progress: Progress = quiet,
    ) -> None:
        check_plain(model)
        kind, config = class_of(model.family, "network"), model.transformer.config
        if double > config.num_layers or single > config.num_single_layers:
            raise HandscopeError(
                f"Expected at most the model's {config.num_layers} double and {config.num_single_layers} single "
                f"blocks, found {double} and {single}."
            )
        self.model, self.blocks = model, (double, single)
        model.transformer.requires_grad_(False)
        shape = {name: config[name] for name in ("attention_head_dim", "num_attention_heads")}
        self.network = kind.from_transformer(model.transformer, num_layers=double, num_single_layers=single, **shape)
        self.network.to(model.device).requires_grad_(True)
        self._depth = latents_of(model, [Captioned(path, "") for path in depths], height, width, progress)
        self._rows = torch.arange(0)
        model.transformer.register_forward_pre_hook(self._control, with_kwargs=True)

    def _control(self, module: nn.Module, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
        """What the network makes of a call's arguments and the depth of the rows that are trained on."""
        if not torch.is_grad_enabled():
            return None  # samples are drawn without depth
        shared = {name: given[name] for name in SHARED if name in given}
        depth = self._depth[self._rows].to(given["hidden_states"])
        double, single = self.network(controlnet_cond=depth, return_dict=False, **shared)
        added = {"controlnet_block_samples": double, "controlnet_single_block_samples": single}
        return args, {**given, **added, "controlnet_blocks_repeat": False}

    def said(self) -> dict[str, Any]:
        """Blocks of each kind."""
        return {"kind": "depth-control", "double": self.blocks[0], "single": self.blocks[1]}

    def parameters(self) -> list[nn.Parameter]:
        """All of the network."""
        return list(self.network.parameters())

    captions = LoRA.captions

    def embeddings(self, captions: Sequence[str], rows: Tensor) -> Mapping[str, Any]:
        """Those that the model keeps; the next call is told these rows' depth."""
        self._rows = rows
        return self.model.encode(captions).batch(captions, self.model.device, self.model.dtype)

    def save(self, folder: Path) -> Path:
        """A folder ``controlnet/``, for ``FluxControlNetModel.from_pretrained``."""
        return saved_folder(self.network, folder / "controlnet")
