"""A tiny random FLUX, and a small finished run made with it: shared by every test, made once, offline."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from hypothesis import settings
from tiny import PROMPTS, SEEDS, STEPS, hand_made_labels

# A busy machine is slow, not wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session")
def tiny_pipe_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FluxPipeline of random weights.

    2 double and 3 single blocks of width 32, 32 by 32 pixels, 4 by 4 tokens, 20 text tokens.
    """
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "pipe"
    torch.manual_seed(0)
    letters = [chr(i) for i in range(33, 127)]
    clip_words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    words = sorted({word for prompt in PROMPTS for word in prompt.split()})
    t5_words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(("▁" + word, -1.0) for word in words)]
    pipe = FluxPipeline(
        tokenizer=CLIPTokenizer(vocab={word: i for i, word in enumerate(clip_words)}, merges=[], model_max_length=77),
        tokenizer_2=T5TokenizerFast(vocab=t5_words, extra_ids=0, model_max_length=20),
        text_encoder=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip_words),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                bos_token_id=len(clip_words) - 2,
                eos_token_id=len(clip_words) - 1,
                pad_token_id=len(clip_words) - 1,
            )
        ),
        text_encoder_2=T5EncoderModel(
            T5Config(vocab_size=len(t5_words), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
        ),
        transformer=FluxTransformer2DModel(
            in_channels=16,
            num_layers=2,
            num_single_layers=3,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            guidance_embeds=True,
            axes_dims_rope=(4, 6, 6),
        ),
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            block_out_channels=(8, 8, 8),
            layers_per_block=1,
            latent_channels=4,
            norm_num_groups=1,
            sample_size=32,
            scaling_factor=1.0,
            shift_factor=0.0,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_pipe_folder: Path):
    """The tiny pipeline as a `Model`; a test must leave it as it was."""
    from handscope.models.model import load

    return load(str(tiny_pipe_folder))


@pytest.fixture(scope="session")
def finished_run(tiny_model, tmp_path_factory: pytest.TempPathFactory):
    """48 samples (8 prompts, 6 seeds, 4 steps) with trajectories and labels, and no activations yet. Read it; to write,
    use `run_copy`.
    """
    from handscope.extract.generate import generate
    from handscope.labeling.database.labels import Labels
    from handscope.run.folder import Run

    run = Run(tmp_path_factory.mktemp("runs") / "finished")
    generate(tiny_model, run, PROMPTS, SEEDS, steps=STEPS, batch_size=16)
    Labels(run.labels_path).add(hand_made_labels(run))
    return run


@pytest.fixture(scope="session")
def extracted_run(tiny_model, finished_run, tmp_path_factory: pytest.TempPathFactory):
    """`finished_run` with the activations of three blocks at steps 4, 2 and 1 of 4."""
    from handscope.extract.address import Plan
    from handscope.extract.extract import extract
    from handscope.run.folder import Run

    folder = tmp_path_factory.mktemp("runs") / "extracted"
    shutil.copytree(finished_run.path, folder)
    run = Run(folder)
    extract(tiny_model, run, Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS))
    return run


@pytest.fixture
def run_copy(tmp_path: Path) -> Callable:
    """``run_copy(finished_run)``: a copy of a run that a test may change."""
    from handscope.run.folder import Run

    def copy(run):
        folder = tmp_path / "run"
        shutil.copytree(run.path, folder)
        return Run(folder)

    return copy
