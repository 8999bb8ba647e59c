"""Whether an arm's weights fit its model, by the names and shapes in the files: before anything is loaded or drawn."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import HandscopeError
from ..files import refuse_unusable
from ..mitigations.painting import network_folder
from ..models.checkpoints import PICKLES, Checkpoint
from ..models.family import Family
from ..models.registry import family_in
from .recipe import Paint, Recipe

Shapes = Mapping[str, tuple[int, ...]]
LORA = re.compile(
    r"^(?P<part>transformer|text_encoder(?:_\d)?|unet)\.(?P<where>.+)\.(?P<side>lora_[AB]|lora\.(?:down|up))\.weight$"
)
USUAL = "pytorch_lora_weights.safetensors"


def check_weights(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Refuse weights that do not fit the model of an arm.

    Raises
    ------
    HandscopeError
        The message is a sentence that follows the arm's name and a colon.
    """
    family, folder = family_in(checkpoint.folder), checkpoint.folder
    if recipe.transformer is not None:
        _check_transformer(Path(recipe.transformer), folder)
    if recipe.negative is not None:
        _check_negative(recipe, family)
    if recipe.lora is not None:
        _check_lora(lora_file(recipe), checkpoint, recipe.quantisation is None)
    if recipe.inversion is not None:
        _check_inversion(Path(recipe.inversion.path), folder)
    if recipe.controlnet is not None:
        _check_controlnet(network_folder(recipe.controlnet.path), family, folder)
    if isinstance(recipe.repair, Paint) and recipe.repair.network is not None:
        _check_controlnet(network_folder(recipe.repair.network), family, folder)
    if recipe.ip_adapter is not None:
        shapes_of(Path(recipe.ip_adapter.path) / recipe.ip_adapter.file)
        encoder = recipe.ip_adapter.encoder
        if encoder is not None and not (Path(encoder) / "config.json").is_file():
            raise HandscopeError(f"there is no image encoder in {encoder}: give the folder that holds its config.json.")
        if encoder is None and not (folder / "image_encoder").is_dir():
            raise HandscopeError("an IP-adapter needs the folder of its image encoder: add encoder: FOLDER.")
    side = family.token_side(folder)
    for name in ("height", "width"):
        size = getattr(recipe, name)
        if size is not None and size % side:
            raise HandscopeError(f"a {name} of {size} is no multiple of {side} pixels, one token of {family.name}.")


def lora_file(recipe: Recipe) -> Path:
    """The file of an arm's LoRA weights.

    Raises
    ------
    HandscopeError
        There is none, or several and none is named.
    """
    assert recipe.lora is not None
    path = Path(recipe.lora.path)
    if not path.is_dir():
        return path
    if recipe.lora.file is not None:
        return path / recipe.lora.file
    found = sorted(path.glob("*.safetensors"))
    usual = [one for one in found if one.name == USUAL]
    if len(usual or found) != 1:
        raise HandscopeError(
            f"{path} holds {len(found)} .safetensors files, none of them {USUAL}: name one with lora: {{path, file}}."
        )
    return (usual or found)[0]


def shapes_of(path: Path) -> Shapes:
    """Names and shapes of the tensors of a file, or of all ``.safetensors`` files of a folder; no weight is read.

    Raises
    ------
    HandscopeError
        It is missing, damaged or a pickle.
    """
    if path.suffix.lower() in PICKLES:
        raise HandscopeError(f"{path} is a pickle by its name, which can run any code: convert it to .safetensors.")
    files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
    found: dict[str, tuple[int, ...]] = {}
    for file in files:
        found |= _header(file, file.stat().st_mtime_ns if file.is_file() else 0)
    if not found:
        raise HandscopeError(f"There are no tensors in {path}: expected .safetensors weights.")
    return found


@lru_cache(maxsize=64)
def _header(file: Path, _changed: int) -> Shapes:
    from safetensors import safe_open

    if not file.is_file():
        raise HandscopeError(f"There are no weights {file}: check the path.")
    try:
        with safe_open(file, framework="pt") as opened:
            return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118
    except Exception as error:  # of the library: whatever it says, the file is none that it reads
        refuse_unusable(error, file)
        raise HandscopeError(f"{file} is no whole .safetensors file ({error}): copy or download it again.") from error


def _check_lora(path: Path, checkpoint: Checkpoint, shaped: bool) -> None:
    """Names and shapes of LoRA weights as diffusers writes them; those of other trainers diffusers has to convert."""
    shapes = shapes_of(path)
    known = [found for name in shapes if (found := LORA.match(name))]
    own = checkpoint.single if checkpoint.single and checkpoint.single.is_dir() else checkpoint.folder / "transformer"
    base = shapes_of(own)
    for found in known:
        part, where = found["part"], found["where"]
        if part == "unet":
            raise HandscopeError(f"{path} is of a UNet, as Stable Diffusion 1, 2 and XL are: this model has none.")
        if part != "transformer":
            if not (checkpoint.folder / part).is_dir():
                raise HandscopeError(f"{path} has weights for {part}, which the model in {checkpoint.folder} lacks.")
            continue
        weight = base.get(f"{where}.weight")
        if weight is None:
            raise HandscopeError(
                f"{path} changes {where}, which the transformer in {own} does not have: it was trained on another "
                "model."
            )
        side = -1 if found["side"] in ("lora_A", "lora.down") else 0
        if shaped and len(weight) == 2 and shapes[found.string][side] != weight[side]:
            raise HandscopeError(
                f"{path} changes {where} as if it had {shapes[found.string][side]} numbers on a side, and the "
                f"transformer in {own} has {weight[side]}: it was trained on another model."
            )
    if not known and not any("lora" in name.lower() for name in shapes):
        raise HandscopeError(f"{path} holds no LoRA weights: none of its {len(shapes)} tensors is named so.")


def _check_negative(recipe: Recipe, family: Family) -> None:
    """Guidance is embedded, and a negative prompt has a number of its own; or it is what leads away."""
    if family.negative is None and recipe.true_cfg <= 1:
        raise HandscopeError(
            f"{family.name} is led away from its negative prompt by true_cfg: give a number above 1, such as 2."
        )
    if family.negative is not None and "true_cfg" in recipe.model_fields_set:
        raise HandscopeError(f"{family.name} is led away from its negative prompt by guidance: leave true_cfg out.")
    if family.negative is not None and recipe.guidance <= 1:
        raise HandscopeError(f"guidance of {recipe.guidance:g} leads away from nothing: give more than 1.")


def _check_transformer(path: Path, folder: Path) -> None:
    own, base = shapes_of(path), shapes_of(folder / "transformer")
    lacking = [name for name in base if own.get(name) != base[name]]
    if lacking:
        first = lacking[0]
        raise HandscopeError(
            f"the transformer in {path} is not that of {folder}: {len(lacking)} of {len(base)} tensors differ in name "
            f"or shape, {first} among them ({own.get(first, 'missing')} for {base[first]})."
        )


def _check_inversion(path: Path, folder: Path) -> None:
    shapes = shapes_of(path)
    width = _config(folder / "text_encoder").get("hidden_size")
    if width is None:
        raise HandscopeError(f"a textual inversion needs a CLIP text encoder, and {folder} names no width of one.")
    widths = {shape[-1] for shape in shapes.values() if shape}
    if width not in widths:
        raise HandscopeError(
            f"{path} holds vectors of {', '.join(map(str, sorted(widths)))} numbers, and the text encoder of {folder} "
            f"has words of {width}: it was trained on another model."
        )


def _check_controlnet(path: Path, family: Family, folder: Path) -> None:
    if not family.controlnets:
        raise HandscopeError(f"diffusers has no pipeline of {family.name} with a ControlNet that handscope can call.")
    config, base = _config(path), _config(folder / "transformer")
    expected = family.controlnets[1].partition(":")[2]
    if config.get("_class_name") != expected:
        found = config.get("_class_name", "no config.json")
        raise HandscopeError(f"Expected a {expected} in {path}, found {found}: it is of another model.")
    for name in ("num_attention_heads", "attention_head_dim", "joint_attention_dim", "in_channels"):
        if name in config and name in base and config[name] != base[name]:
            raise HandscopeError(
                f"the ControlNet in {path} has {name} {config[name]}, and the model in {folder} {base[name]}: it is of "
                "another model."
            )
    shapes_of(path)


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
