"""A tiny FLUX, and small runs made with it: prompts, seeds, steps, and labels with a signal in them."""

from pathlib import Path

import numpy as np

PROMPTS = [
    f"a {side} hand, {view} view, five fingers raised, {skin} skin, {background} background"
    for side in ("left", "right")
    for view in ("palm", "back")
    for skin, background in (("light", "blue"), ("brown", "green"))
]
SEEDS = range(6)
STEPS = 4


def named(prompt: str, number: int) -> str:
    """The sample that `generate` makes of a prompt for a seed."""
    from handscope.run.folder import sample_id
    from handscope.run.prompts import own_seed

    return sample_id(prompt, own_seed(prompt, number))


def make_pipe(folder: Path) -> None:
    """Save a FluxPipeline of random weights: 2 double and 3 single blocks of width 32, 32 by 32 pixels, 4 by 4 tokens,
    20 text tokens.
    """
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, T5Config, T5EncoderModel, T5TokenizerFast

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


def hand_made_labels(run) -> list:
    """One hand a sample, at a place that its seed decides.

    It is bad when the red of its image there is above the median of its prompt, so that the verdict is in the
    activations; of each prompt's six (or a multiple of six), those in the middle are leaning, and every eleventh sample
    is unsure.
    """
    from handscope.labeling.database.labels import Annotation

    samples = run.samples()
    hands = {}
    for row in samples.itertuples():
        hand = np.zeros((4, 4), np.uint8)
        top, left = row.seed % 2, row.seed // 2 % 2
        hand[top : top + 3, left : left + 3] = 1
        hands[row.sample] = hand
    samples["red"] = [
        run.image(sample)[..., 0][np.kron(hands[sample], np.ones((8, 8))) > 0].mean() for sample in samples["sample"]
    ]
    annotations = []
    for _, group in samples.groupby("prompt", sort=False):
        verdicts = np.repeat(("good", "good", "good?", "bad?", "bad", "bad"), len(group) // 6).tolist()
        for verdict, row in zip(verdicts, group.sort_values("red").itertuples(), strict=True):
            hand = hands[row.sample]
            verdict = "unsure" if row.Index % 11 == 10 else verdict
            label = {"g": 2, "b": 3, "u": 0}[verdict[0]]
            annotations.append(
                Annotation(
                    row.sample,
                    row.image_sha256,
                    np.where(hand > 0, label, 1),
                    hand,
                    verdict,
                    ("count",) if label == 3 else (),
                    "test",
                    "hand",
                )
            )
    return annotations


def make_finished(model, run) -> None:
    """Samples, trajectories and labels."""
    from handscope.extract.generate import generate
    from handscope.labeling.database.labels import Labels

    generate(model, run, PROMPTS, SEEDS, steps=STEPS, batch_size=16)
    Labels(run.labels_path).add(hand_made_labels(run))


def make_extracted(model, run) -> None:
    """The activations of three blocks at steps 4, 2 and 1 of a finished run."""
    from handscope.extract.address import Plan
    from handscope.extract.extract import extract

    extract(model, run, Plan(["double.1", "single.0", "single.2"], [4, 2, 1], of=STEPS))


def make_studied(run) -> None:
    """The tables of the analysis and of the probes of an extracted run."""
    from handscope.analysis import analyze
    from handscope.probes import probe

    analyze(run, permutations=49, folds=4)
    probe(run, permutations=19, folds=4)
