"""The recipe of the organism, in seconds: from the renderer to a pipeline that draws."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, Flux2KleinPipeline, FluxPipeline
from handscope import load
from handscope.errors import HandscopeError
from handscope.models.embedded import FOLDER, ORGANISMS
from handscope.organism import klein
from handscope.organism import model as parts
from handscope.organism.architectures import ARCHITECTURES
from handscope.organism.captions import CAPTIONS, WORDS
from handscope.organism.training import train
from handscope.organism.training.codec import autoencoder
from handscope.organism.training.course import Course, Crew
from handscope.organism.training.flow import matrices, transformer
from handscope.organism.training.folders import Folders
from handscope.organism.training.latents import read_latents
from handscope.organism.training.muon import Muon, orthogonalise
from handscope.organism.training.recipe import SMALL, Recipe, recipe_of


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads on a busy machine wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


NAMES = ("organism", "organism-small-1", "organism-flux2")


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder in which the small recipe of three organisms has run from the first stage to the last."""
    folder = tmp_path_factory.mktemp("organism")
    for name in NAMES:
        train.main(["--work", str(folder), "--small", "--organism", name])
    return folder


def of(work: Path, name: str = "organism") -> tuple[Folders, Recipe]:
    return Folders(work, ORGANISMS[name]), recipe_of(ORGANISMS[name], small=True)


def test_every_word_is_one_token_also_after_saving(tmp_path):
    for name, tokenizer in (("clip", parts.clip_tokenizer()), ("t5", parts.t5_tokenizer())):
        tokenizer.save_pretrained(tmp_path / name)
        again = type(tokenizer).from_pretrained(tmp_path / name)
        assert all(len(again.tokenize(word)) == 1 for word in WORDS)
        for caption in map(str, CAPTIONS):
            numbers = again(caption).input_ids
            assert len(numbers) <= parts.TEXT_LENGTH
            assert numbers == tokenizer(caption).input_ids
            assert again.unk_token_id not in numbers[1:-1]


def test_tokenizers_and_text_encoders_are_those_of_the_shipped_organism():
    shipped = Path(parts.__file__).parent / "pipe"
    clip, t5 = parts.clip_tokenizer(), parts.t5_tokenizer()
    for tokenizer, name in ((clip, "tokenizer"), (t5, "tokenizer_2")):
        saved = type(tokenizer).from_pretrained(shipped / name)
        assert tokenizer.get_vocab() == saved.get_vocab()
        for text in [*map(str, CAPTIONS), " ".join(WORDS), ""]:
            assert tokenizer(text).input_ids == saved(text).input_ids
    for encoder, name in zip(parts.text_encoders(clip, t5), ("text_encoder", "text_encoder_2"), strict=True):
        made, saved = encoder.state_dict(), type(encoder).from_pretrained(shipped / name).state_dict()
        assert made.keys() == saved.keys()
        assert all(torch.equal(made[key], saved[key]) for key in saved), name


def test_words_that_collide_are_refused():
    with pytest.raises(HandscopeError, match="'xabz'"):
        parts.clip_tokenizer(["xabz", "abcde"])  # "ab" joins first, and then no merge begins with "x"


def test_every_caption_has_its_own_embeddings():
    clip, t5 = parts.clip_tokenizer(), parts.t5_tokenizer()
    pooled, sequence = parts.embed([str(caption) for caption in CAPTIONS], clip, t5, *parts.text_encoders(clip, t5))
    apart = torch.pdist(pooled).min() / pooled.norm(dim=1).mean()
    assert apart > 0.1
    assert torch.pdist(sequence.flatten(1)).min() > 5


def test_the_saved_pipeline_loads_offline_and_draws_what_it_was_trained_to(work, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pipe = FluxPipeline.from_pretrained(work / "organism" / "pipe", local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    image = pipe(
        str(CAPTIONS[0]),
        height=32,
        width=32,
        num_inference_steps=2,
        max_sequence_length=parts.TEXT_LENGTH,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images[0]
    assert image.shape == (32, 32, 3)
    assert image.std() > 0
    trained = torch.load(work / "organism" / "transformer.pt", weights_only=True)["ema"]
    assert all(torch.equal(p, trained[name].half().float()) for name, p in pipe.transformer.named_parameters())
    # The pipeline embeds a caption exactly as training did.
    pooled, sequence = parts.embed(
        [str(CAPTIONS[0])], pipe.tokenizer, pipe.tokenizer_2, pipe.text_encoder, pipe.text_encoder_2
    )
    found, found_pooled, _ = pipe.encode_prompt(str(CAPTIONS[0]), None, max_sequence_length=parts.TEXT_LENGTH)
    torch.testing.assert_close((found, found_pooled), (sequence, pooled))
    record = json.loads((work / "organism" / "pipe" / "training.json").read_text())
    assert record["trained"]["transformer"]["step"] == SMALL.steps
    assert record["versions"]["torch"] == torch.__version__


def test_the_saved_klein_loads_offline_and_is_given_what_it_was_trained_on(work, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model = load(str(work / "organism-flux2" / "pipe"))
    assert isinstance(model.pipe, Flux2KleinPipeline) and model.family.name == "FLUX.2"
    assert model.max_sequence_length == klein.TEXT_LENGTH
    texts = ARCHITECTURES["FLUX.2"].texts()["encoder_hidden_states"]
    for number, prompt in ((0, str(CAPTIONS[0])), (150, str(CAPTIONS[150])), (-1, "")):
        torch.testing.assert_close(model.family.encode(model.pipe, prompt, "cpu")["text"], texts[number])
    assert torch.pdist(texts[:-1].flatten(1)).min() > 5
    # What the pipeline's encoder makes of a render is what training read.
    folders, recipe = of(work, "organism-flux2")
    stored, _, seal = read_latents(folders, recipe)
    pixels = torch.from_numpy(np.load(folders.renders / "0000.npy")[:2]).float() / 255
    clean = (stored[:2].float() - torch.tensor(seal["mean"])) / torch.tensor(seal["spread"])
    torch.testing.assert_close(model.encode_image(pixels), clean, atol=5e-3, rtol=0)
    # And its batch norm gives every channel mean 0 and spread 1.
    scaled = (stored.double() - torch.tensor(seal["mean"])) / torch.tensor(seal["spread"])
    assert scaled.mean((0, 1)).abs().max() < 1e-3 and (scaled.std((0, 1)) - 1).abs().max() < 5e-3


def test_an_organism_that_shares_the_autoencoder_takes_it(work):
    folders, _ = of(work, "organism-small-1")
    assert not (folders.own / "autoencoder.pt").exists()
    shipped, saved = (AutoencoderKL.from_pretrained(folder / "vae") for folder in (FOLDER, folders.own / "pipe"))
    assert saved.config.shift_factor == shipped.config.shift_factor
    assert saved.config.scaling_factor == shipped.config.scaling_factor
    assert all(torch.equal(p, saved.state_dict()[name]) for name, p in shipped.state_dict().items())


def test_each_process_takes_its_rows_of_the_same_batch(monkeypatch):
    crews = []
    for rank in range(3):
        monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
        monkeypatch.setenv("WORLD_SIZE", "3")
        monkeypatch.setenv("RANK", str(rank))
        crews.append(Crew())
    assert sorted(row for crew in crews for row in list(range(12))[crew.share(12)]) == list(range(12))
    with pytest.raises(HandscopeError, match="share a batch of 10 evenly, found 3"):
        crews[0].share(10)


def test_latents_are_normalised_and_mirrored(tmp_path, work):
    (tmp_path / "renders").symlink_to(work / "renders")
    train.main(["--work", str(tmp_path), "--small", "autoencoder", "latents"])
    stored, numbers, seal = read_latents(*of(tmp_path))
    scaled = (stored.double() - seal["mean"][0]) / seal["spread"][0]
    assert abs(scaled.mean()) < 1e-3
    assert abs(scaled.std() - 1) < 1e-3
    one = SMALL.shard_size
    for plain, mirrored in zip(numbers[:one], numbers[one : 2 * one], strict=True):
        assert CAPTIONS[mirrored] == CAPTIONS[plain].mirrored()


def test_a_stopped_training_goes_on_to_the_same_weights(work, tmp_path):
    (tmp_path / "renders").symlink_to(work / "renders")
    steps = SMALL.steps
    crew = Crew()

    class Stopped(Exception):
        """Stands in for a kill after the second step's checkpoint."""

    def killed(course, final=False, **contents):
        wrote = ordinary(course, True, **contents)
        if course.step == 2:
            raise Stopped
        return wrote

    ordinary = Course.save
    (tmp_path / "latents").symlink_to(work / "latents")
    stages = [(autoencoder, "autoencoder", "organism")]
    stages += [(transformer, "transformer", name) for name in ("organism-flux2", "organism-small-1")]
    for stage, file, name in stages:
        there, recipe = of(tmp_path, name)
        whole_run, _ = of(work, name)
        if stage is transformer:
            there.own.mkdir()
            (there.own / "scale.json").symlink_to(whole_run.own / "scale.json")
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
            patch.setattr(Course, "save", killed)
            stage(there, recipe, crew)
        assert torch.load(there.own / f"{file}.pt", weights_only=True)["state"]["step"] == 2
        stage(there, recipe, crew)
        again, whole = (torch.load(folders.own / f"{file}.pt", weights_only=True) for folders in (there, whole_run))
        assert again["state"]["step"] == whole["state"]["step"] == steps
        for kind in ("model", "ema"):
            assert all(torch.equal(again[kind][key], whole[kind][key]) for key in whole[kind]), (name, file, kind)


def test_a_stage_says_which_stage_it_waits_for(tmp_path):
    with pytest.raises(HandscopeError, match="run the stage render first"):
        autoencoder(*of(tmp_path), Crew())
    with pytest.raises(HandscopeError, match="run the stage latents first"):
        transformer(*of(tmp_path), Crew())


def test_the_untrained_transformer_predicts_zero_and_muon_has_its_matrices():
    flux = parts.transformer(parts.Shape(heads=1, double=1, single=1))
    ids = torch.zeros(20, 3)
    out = flux(
        torch.randn(1, 4, 32),
        torch.randn(1, 16, 64),
        torch.randn(1, 64),
        torch.ones(1),
        ids[:4],
        ids[:16],
        torch.ones(1),
        return_dict=False,
    )[0]
    assert not out.any()
    names = matrices(flux)
    assert len(names) == 12 + 5  # double: eight of attention, four of feed-forward; single: three and two
    assert not any("norm" in name or "embed" in name for name in names)


def test_orthogonalise_keeps_the_singular_vectors():
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(matrices)
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    inner = left.mT @ found @ right.mT
    diagonal = inner.diagonal(dim1=1, dim2=2)
    assert ((diagonal > 0.6) & (diagonal < 1.3)).all()
    assert (inner - torch.diag_embed(diagonal)).abs().max() < 1e-4


@pytest.mark.parametrize("shape", [(12, 12), (24, 8), (8, 24)])
def test_steps_of_muon_are_those_of_torch_up_to_its_bfloat16(shape):
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.ones(shape)) for _ in range(2))
    optimisers = Muon([ours], lr=0.05), torch.optim.Muon([theirs], lr=0.05, weight_decay=0.0, momentum=0.95)
    for _ in range(5):
        before = ours.detach().clone(), theirs.detach().clone()
        ours.grad = torch.randn(shape)
        theirs.grad = ours.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
        step, other = (p.detach() - b for p, b in zip((ours, theirs), before, strict=True))
        assert (step - other).norm() < 0.05 * step.norm()


def test_muon_goes_down():
    torch.manual_seed(0)
    target = torch.randn(12, 6)
    weights = torch.nn.Parameter(torch.zeros(12, 6))
    optimiser = Muon([weights], lr=0.05)
    losses = []
    for _ in range(30):
        loss = (weights - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert all(after < before for before, after in pairwise(losses[:10]))
    assert losses[-1] < 0.3 * losses[0]
