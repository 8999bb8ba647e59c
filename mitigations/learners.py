"""What can be learnt from pictures: a LoRA, words for the text encoders, or all weights of the transformer.

A learner changes its model in place: after a training the model has what was learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers.loaders import TextualInversionLoaderMixin
from diffusers.training_utils import _collate_lora_metadata, cast_training_params
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import HandscopeError
from ..files import atomic, order_header, whole_folder
from ..models.checkpoints import quiet_libraries
from ..models.model import Model

ADAPTER = "default"
LORA, EMBEDDINGS = "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"
"""The files that diffusers' loaders look for."""


class Learner(Protocol):
    """What `handscope.mitigations.train.train` trains."""

    model: Model

    def said(self) -> dict[str, Any]:
        """What it is, in words of JSON."""

    def parameters(self) -> list[nn.Parameter]:
        """What is learnt, in an order that does not change."""

    def captions(self, captions: Sequence[str]) -> list[str]:
        """Captions as they are trained on."""

    def embeddings(self, captions: Sequence[str], rows: Tensor) -> Mapping[str, Any]:
        """Embeddings of a batch, which is of the pictures of these rows."""

    def save(self, folder: Path) -> Path:
        """Write what is learnt so that diffusers loads it; the file or folder that was written."""


class LoRA:
    """Low-rank changes of the transformer's linear layers (Hu et al. 2021, arXiv 2106.09685), through peft.

    >>> pipe.load_lora_weights("out")                                    # doctest: +SKIP

    Parameters
    ----------
    rank, alpha : int
        A layer changes by alpha / rank * B @ A; alpha is the rank by default.
    targets : sequence of str, optional
        Ends of the layers' names. By default all linear layers of the family's blocks but those of norms, whose
        modulation is the same for every token.
    seed : int
        Of what A begins as; B begins as zeros.

    Raises
    ------
    HandscopeError
        peft is not installed, no layer is so called, or something acts in the model already.
    """

    def __init__(
        self,
        model: Model,
        rank: int = 16,
        alpha: int | None = None,
        targets: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        try:
            with quiet_libraries():  # peft looks for packages of quantisation
                from peft import LoraConfig
        except ImportError as error:
            raise HandscopeError("Training a LoRA needs peft: pip install 'handscope[train]'.") from error
        check_plain(model)
        if rank < 1:
            raise HandscopeError(f"Expected a rank of at least 1, found {rank}.")
        self.model, self.rank, self.alpha = model, rank, alpha or rank
        self.layers = _layers(model, targets)
        model.transformer.requires_grad_(False)
        config = LoraConfig(r=rank, lora_alpha=self.alpha, init_lora_weights="gaussian", target_modules=self.layers)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model.transformer.add_adapter(config, adapter_name=ADAPTER)
        cast_training_params(model.transformer, torch.float32)

    def said(self) -> dict[str, Any]:
        """Rank, alpha and layers."""
        return {"kind": "lora", "rank": self.rank, "alpha": self.alpha, "layers": self.layers}

    def parameters(self) -> list[nn.Parameter]:
        """A and B of each layer."""
        return [p for p in self.model.transformer.parameters() if p.requires_grad]

    def captions(self, captions: Sequence[str]) -> list[str]:
        """As they are."""
        return list(captions)

    def embeddings(self, captions: Sequence[str], rows: Tensor) -> Mapping[str, Any]:
        """Those that the model keeps."""
        return self.model.encode(captions).batch(captions, self.model.device, self.model.dtype)

    def save(self, folder: Path) -> Path:
        """For ``pipe.load_lora_weights(folder)``."""
        from peft.utils import get_peft_model_state_dict

        transformer, path = self.model.transformer, folder / LORA
        with atomic(path) as temporary:
            type(self.model.pipe).save_lora_weights(
                temporary.parent,
                transformer_lora_layers=get_peft_model_state_dict(transformer, adapter_name=ADAPTER),
                weight_name=temporary.name,
                **_collate_lora_metadata({"transformer": transformer}),
            )
            order_header(temporary)
        return path


class TextualInversion:
    """Vectors for a new word of every text encoder (Gal et al. 2022, arXiv 2208.01618).

    >>> pipe.load_textual_inversion("out", weight_name="learned_embeds.safetensors")       # doctest: +SKIP
    >>> pipe.load_textual_inversion("out", weight_name="learned_embeds_2.safetensors",
    ...                             text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)  # doctest: +SKIP

    Parameters
    ----------
    token : str
        The new word. Captions without it get it in front.
    initial : str
        The word whose vectors it begins with, the mean of its tokens'.
    vectors : int
        Tokens that the word stands for.

    Raises
    ------
    HandscopeError
        The pipeline loads no textual inversion, the encoders know the word already, or something acts in the model.
    """

    def __init__(self, model: Model, token: str, initial: str, vectors: int = 1) -> None:
        check_plain(model)
        pipe = model.pipe
        if not isinstance(pipe, TextualInversionLoaderMixin):
            raise HandscopeError(
                f"A {type(pipe).__name__} loads no textual inversion in this version of diffusers: train a LoRA."
            )
        if vectors < 1 or not token.strip() or token.split() != [token]:
            raise HandscopeError(f"Expected a word for at least 1 vector, found {token!r} for {vectors}.")
        self.model, self.token, self.initial, self.vectors = model, token, initial, vectors
        model.transformer.requires_grad_(False)
        self.learnt: dict[str, nn.Parameter] = {}
        for name in model.family.encoders:
            self.learnt[name] = self._enter(name, name.replace("text_encoder", "tokenizer"))

    def _enter(self, encoder_name: str, tokenizer_name: str) -> nn.Parameter:
        """Make the word known to one encoder, its vectors parameters of the table that they stand in."""
        pipe = self.model.pipe
        encoder, tokenizer = getattr(pipe, encoder_name), getattr(pipe, tokenizer_name)
        if self.token in tokenizer.get_vocab():
            raise HandscopeError(f"The {tokenizer_name} knows {self.token!r} already: choose another word.")
        ids = tokenizer(self.initial, add_special_tokens=False).input_ids
        if not ids or tokenizer.unk_token_id in ids[:1] and len(ids) == 1:
            raise HandscopeError(f"The {tokenizer_name} does not know {self.initial!r}: choose another initial word.")
        encoder.requires_grad_(False)
        begun = encoder.get_input_embeddings().weight[ids].mean(0, keepdim=True).repeat(self.vectors, 1).clone()
        pipe.load_textual_inversion({self.token: begun}, token=self.token, text_encoder=encoder, tokenizer=tokenizer)
        encoder.requires_grad_(False)
        table = encoder.get_input_embeddings()
        first = tokenizer.convert_tokens_to_ids(self.token)
        # A parameter of the table, so that the model sees that its encoders have changed.
        learnt = nn.Parameter(begun.float())
        table.register_parameter("learnt", learnt)

        def replaced(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            new = given[0] - first
            rows = learnt[new.clamp(0, self.vectors - 1)].to(output.dtype)
            return torch.where(((new >= 0) & (new < self.vectors))[..., None], rows, output)

        table.register_forward_hook(replaced)
        return learnt

    def said(self) -> dict[str, Any]:
        """The word."""
        return {
            "kind": "textual-inversion", "token": self.token, "initial": self.initial, "vectors": self.vectors
        }  # fmt: skip

    def parameters(self) -> list[nn.Parameter]:
        """The vectors of each encoder."""
        return list(self.learnt.values())

    def captions(self, captions: Sequence[str]) -> list[str]:
        """With the new word."""
        return [one if self.token in one.split() else f"{self.token} {one}" for one in captions]

    def embeddings(self, captions: Sequence[str], rows: Tensor) -> Mapping[str, Any]:
        """Made anew, so that gradients reach the vectors."""
        model = self.model
        encoded = [model.family.encode(model.pipe, caption, model.device) for caption in captions]
        return {name: torch.stack([one[name] for one in encoded]) for name in encoded[0]}

    def save(self, folder: Path) -> Path:
        """One file an encoder, for ``pipe.load_textual_inversion``."""
        for number, learnt in enumerate(self.learnt.values(), 1):
            with atomic(folder / (EMBEDDINGS if number == 1 else EMBEDDINGS.replace(".", f"_{number}."))) as temporary:
                save_file({self.token: learnt.detach().cpu().contiguous()}, temporary)
        return folder / EMBEDDINGS


class DreamBooth:
    """All weights of the transformer (Ruiz et al. 2022, arXiv 2208.12242); a word of the captions names what is meant.

    >>> pipe.transformer = FluxTransformer2DModel.from_pretrained("out/transformer")       # doctest: +SKIP

    Raises
    ------
    HandscopeError
        The model is not in float32, or is quantised or offloaded; or something acts in it already.
    """

    def __init__(self, model: Model) -> None:
        check_plain(model)
        if model.dtype != torch.float32 or model.quantisation or model.quantised or model.offload:
            raise HandscopeError(
                "All weights can be trained only where they are in float32, whole, on the device: load the model with "
                "--dtype float32, without quantisation and offload (--precision bfloat16 computes in bfloat16)."
            )
        self.model = model
        model.transformer.requires_grad_(True)

    def said(self) -> dict[str, Any]:
        """That it is all weights."""
        return {"kind": "dreambooth"}

    def parameters(self) -> list[nn.Parameter]:
        """All of the transformer."""
        return list(self.model.transformer.parameters())

    captions, embeddings = LoRA.captions, LoRA.embeddings

    def save(self, folder: Path) -> Path:
        """A folder ``transformer/``, as in a pipeline's."""
        return saved_folder(self.model.transformer, folder / "transformer")


def saved_folder(module: Any, target: Path) -> Path:
    """The folder in which a module of diffusers was saved, whole or not at all."""
    with whole_folder(target) as made:
        module.save_pretrained(made)
    return target


def check_plain(model: Model) -> None:
    """Refuse a model in which something acts."""
    if model.state != "plain":
        raise HandscopeError(
            f"Something acts in the model already ({model.state}), and would be trained with: load it anew."
        )


def _layers(model: Model, targets: Sequence[str] | None) -> list[str]:
    """Full names of the linear layers that a LoRA changes."""
    transformer, blocks = model.transformer, set(model.family.blocks(model.transformer).values())
    roots = [name for name, module in transformer.named_modules() if module in blocks]
    linear = [name for name, module in transformer.named_modules() if isinstance(module, nn.Linear)]
    if targets is None:
        return [
            name
            for name in linear
            if any(name.startswith(f"{root}.") and "norm" not in name.removeprefix(root) for root in roots)
        ]
    for target in targets:
        if not any(_ends(name, target) for name in linear):
            inside = {name.removeprefix(f"{root}.") for name in linear for root in roots if name.startswith(f"{root}.")}
            kinds = sorted(inside)
            raise HandscopeError(
                f"No linear layer of {model.name} ends in {target!r}; its blocks have {', '.join(kinds)}."
            )
    return [name for name in linear if any(_ends(name, target) for target in targets)]


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
