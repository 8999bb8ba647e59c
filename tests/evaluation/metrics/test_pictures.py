"""Features and scores of pictures, by tiny networks in folders of the user; and the command that measures."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import transformers as hf
from handscope import cli
from handscope.anatomy.read.embedding import landmark_features
from handscope.errors import HandscopeError
from handscope.evaluation.metrics import named
from handscope.evaluation.metrics.features import in_batches
from handscope.evaluation.metrics.measure import distance, mean
from PIL import Image

RANDOM = np.random.default_rng(3)
PICTURES = [Image.fromarray(RANDOM.integers(0, 255, (size, 40, 3)).astype(np.uint8)) for size in (40, 40, 56, 40)]
PROMPTS = ["a b", "a b", "b", "c a b c c"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLIP of two layers that spells, with its processor, in a folder."""
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    words = ["<|startoftext|>", "<|endoftext|>", *"abc", *(f"{letter}</w>" for letter in "abc")]
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": 12, "bos_token_id": 0, "eos_token_id": 1}
    config = hf.CLIPConfig(
        text_config=text, vision_config=sizes | {"image_size": 32, "patch_size": 8}, projection_dim=8
    )
    tokenizer = hf.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=12)
    processor = hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    hf.CLIPModel(config).save_pretrained(folder)
    hf.CLIPProcessor(processor, tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = hf.Dinov2Config(hidden_size=12, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    hf.Dinov2Model(config).save_pretrained(folder)
    hf.BitImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
    return str(folder)


def test_the_clip_score_is_the_cosine_of_the_models_own_embeddings(clip: str) -> None:
    model = hf.CLIPModel.from_pretrained(clip).eval()
    processor = hf.CLIPProcessor.from_pretrained(clip)
    found = named("clip-score", path=clip, batch_size=3)(PICTURES, PROMPTS)
    for picture, prompt, value in zip(PICTURES, PROMPTS, found, strict=True):
        with torch.no_grad():
            out = model(**processor(text=[prompt], images=[picture], return_tensors="pt"))
        assert value == pytest.approx(100 * max(0.0, float((out.image_embeds @ out.text_embeds.T).item())), abs=1e-3)
    assert found.std() > 0
    assert named("clip-score", path=clip)(PICTURES[:1], ["a b c " * 40]).shape == (1,)  # cut, not refused


def test_features_are_those_of_the_model(clip: str, dino: str) -> None:
    assert named("transformers", path=clip)(PICTURES).shape == (4, 8)
    found = named("transformers", path=dino, batch_size=3)(PICTURES)
    model, processor = hf.AutoModel.from_pretrained(dino).eval(), hf.AutoImageProcessor.from_pretrained(dino)
    with torch.no_grad():
        expected = model(**processor(images=PICTURES[2], return_tensors="pt")).pooler_output[0]
    assert found[2] == pytest.approx(expected.numpy(), abs=1e-5)


def test_landmark_features_of_pictures_of_several_sizes() -> None:
    found = named("landmark")(PICTURES)
    assert found[2] == pytest.approx(landmark_features(np.array(PICTURES[2])[None])[0])


def test_a_picture_without_an_instance_has_no_features_of_a_crop() -> None:
    blank = Image.new("RGB", (64, 64), "white")
    assert np.isnan(named("landmark", crops=True)([blank])).all()
    with pytest.raises(HandscopeError, match="No instance"):
        in_batches(lambda some: torch.zeros(len(some), 2), [blank], crops=True, batch_size=2)


@pytest.mark.parametrize("name", ["transformers", "clip-score"])
def test_a_folder_without_a_model_is_a_sentence(name: str, tmp_path: Path) -> None:
    given = (PICTURES[:1], ["a"])[: 1 + (name == "clip-score")]
    with pytest.raises(HandscopeError, match="no folder"):
        named(name, path=str(tmp_path / "none"))(*given)
    with pytest.raises(HandscopeError, match="holds no model"):
        named(name, path=str(tmp_path))(*given)
    with pytest.raises(HandscopeError, match="needs path"):
        named(name)


def test_what_has_no_features_is_left_out_and_said() -> None:
    x, y = RANDOM.normal(size=(30, 4)), RANDOM.normal(size=(20, 4))
    x[3] = np.nan
    found = distance(named("kid"), x, y, np.arange(30))
    assert found.n == 29 and found.m == 20 and found.warning.startswith("1 of 30 pictures")
    with pytest.raises(HandscopeError, match="two of each"):
        distance(named("kid"), np.full((4, 2), np.nan), y, np.arange(4))


def test_the_mean_of_scores_is_drawn_by_prompts() -> None:
    values, groups = np.repeat([0.0, 1.0], 50), np.repeat([0, 1], 50)
    clustered, alone = mean(values, groups), mean(values, np.arange(100))
    assert clustered.value == alone.value == 0.5
    assert (clustered.lo, clustered.hi) == (0, 1) and "few" in clustered.warning
    assert alone.hi - alone.lo == pytest.approx(2 * 1.96 * 0.05, rel=0.1) and not alone.warning
    assert mean([np.nan, 1.0, 3.0], [0, 1, 2]).value == 2


def test_the_command_measures_folders(tmp_path: Path, clip: str, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("mine", "real"):
        (tmp_path / folder).mkdir()
        lines = []
        for number in range(6):
            picture = RANDOM.integers(0, 255, (48, 48, 3)).astype(np.uint8)
            Image.fromarray(picture).save(tmp_path / folder / f"{number}.png")
            lines.append(json.dumps({"file_name": f"{number}.png", "prompt": "abc"[number % 3]}))
        if folder == "mine":
            (tmp_path / folder / "metadata.jsonl").write_text("\n".join(lines))
    asked = ["metrics", str(tmp_path / "mine"), "--out", str(tmp_path / "out")]
    to = ["--reference", str(tmp_path / "real"), "--features", f"transformers={clip}"]
    assert cli.main([*asked, *to, "--metrics", f"kid,frechet,clip-score={clip}"]) == 0
    said = capsys.readouterr().out
    assert "kid of transformers features" in said and "rank" in said and "3 prompts are few" in said
    table = pd.read_csv(tmp_path / "out" / "metrics.csv").set_index("metric")
    assert table.loc["kid", "n"] == 6 and table.loc["clip-score", "m"] == 0
    scores = pd.read_csv(tmp_path / "out" / "pictures.csv")
    assert table.loc["clip-score", "value"] == pytest.approx(scores["clip-score"].mean(), rel=1e-4)
    for more, words in (
        (["--metrics", "kid"], "--reference"),
        ([*to, "--metrics", "landmark"], "no metric"),
        ([*to, "--metrics", "kid", "--features", "kid"], "no features"),
        (["--metrics", f"clip-score={tmp_path}"], "holds no model"),
    ):
        assert cli.main([*asked, *more]) == 2
        assert words in capsys.readouterr().err
    assert cli.main(["metrics", str(tmp_path / "real"), "--metrics", f"clip-score={clip}"]) == 2
    assert "needs prompts" in capsys.readouterr().err
