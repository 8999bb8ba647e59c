"""Watching a generation: the scores are the probe's on the captured stream, and x0 is the step's own prediction."""

import numpy as np
import pytest
import torch
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.extract.address import Plan
from handscope.extract.capture import capture
from handscope.extract.generate import draw, generate
from handscope.probes import LogisticProbe
from handscope.probes.choose import saved_probes
from handscope.probes.saved import save_probe
from handscope.probes.watch import CAVEAT, Live, watch
from handscope.run.folder import Run
from IPython import display
from PIL import Image, ImageSequence

PROMPT, SEED, STEPS, SIZE = "a left hand, palm view, five fingers raised, light skin, blue background", 3, 4, 32


def probe_of(block: str, step: int, seed: int = 0, source: str = "mean of a sample's hand tokens") -> LogisticProbe:
    rng = np.random.default_rng(seed)
    probe = LogisticProbe(1.0).fit(rng.normal(size=(20, 32)), np.arange(20) % 2)
    probe.metadata_ = {"block": block, "step": step, "input": source}
    return probe


@pytest.fixture(scope="module")
def seen(tiny_model):
    probes = [probe_of("single.2", 4, 1), probe_of("single.2", 1, 2), probe_of("double.1", 2, 3)]
    return probes, watch(tiny_model, probes, PROMPT, SEED, STEPS)


def test_scores_are_the_probes_on_every_token_of_every_step(tiny_model, seen):
    probes, found = seen
    plan = Plan(["double.1", "single.2"], range(STEPS, 0, -1), of=STEPS)
    with capture(tiny_model.transformer, plan) as stream:
        drawn = draw(tiny_model, [(PROMPT, SEED)], STEPS, 3.5, SIZE, SIZE, trajectories=False)
    assert found.blocks == ("double.1", "single.2") and found.steps == (4, 3, 2, 1)
    assert found.scores.shape == (2, 4, 4, 4)
    np.testing.assert_array_equal(found.image, drawn.images[0])
    nearest = {"double.1": [2] * 4, "single.2": [4, 4, 1, 1]}  # of two as near, the noisier
    by_place = {(probe.metadata_["block"], probe.metadata_["step"]): probe for probe in probes}
    for b, block in enumerate(found.blocks):
        assert found.fitted[b].tolist() == nearest[block]
        for i, step in enumerate(found.steps):
            expected = by_place[block, nearest[block][i]].decision_function(stream[block, step][0].double().numpy())
            np.testing.assert_allclose(found.scores[b, i].ravel(), expected, atol=1e-4)


def test_x0_is_what_the_step_predicts(tiny_model, seen, tmp_path):
    run = Run(tmp_path / "run")
    made = generate(tiny_model, run, [PROMPT], [SEED], steps=STEPS, batch_size=1, design="crossed")
    sample = made["sample"][0]
    trajectory = run.trajectory(sample)
    for i in range(STEPS):
        clean = tiny_model.decode(trajectory.x0(i)[None], SIZE, SIZE)[0].permute(1, 2, 0)
        difference = np.abs(seen[1].x0[i].astype(int) - (255 * clean).round().numpy())
        assert difference.max() <= 1  # x0 through the scheduler's step, back and forth, may round otherwise
    np.testing.assert_array_equal(seen[1].x0[-1], run.image(sample))  # the last step ends at its prediction


def test_the_mean_over_a_hand_is_the_probe_on_the_mean_token(tiny_model, seen):
    probes, found = seen
    mask = np.zeros((4, 4), bool)
    mask[1:3, 1:4] = True
    plan = Plan(["double.1"], [2], of=STEPS)
    with capture(tiny_model.transformer, plan, tokens=mask) as stream:
        draw(tiny_model, [(PROMPT, SEED)], STEPS, 3.5, SIZE, SIZE, trajectories=False)
    expected = probes[2].decision_function(stream["double.1", 2][0].double().mean(0, keepdim=True).numpy())[0]
    assert found.mean(mask)[0, 2] == pytest.approx(expected, abs=1e-5)
    with pytest.raises(HandscopeError, match="4 by 4 tokens"):
        found.mean(np.zeros((4, 4), bool))


def test_hooks_are_gone_whatever_happens(tiny_model):
    def stop(found, i):
        raise RuntimeError("enough")

    hooks = len(tiny_model.transformer._forward_hooks)
    with pytest.raises(RuntimeError, match="enough"):
        watch(tiny_model, probe_of("double.0", 1), PROMPT, SEED, STEPS, see=stop)
    assert len(tiny_model.transformer._forward_hooks) == hooks
    assert not any(block._forward_hooks for block in tiny_model.transformer.transformer_blocks)


def test_what_single_tokens_are_not_is_said_unless_the_probe_was_fitted_to_them(tiny_model, seen):
    found = seen[1]
    assert found.caveat == CAVEAT
    ax = found.figure().axes[0]
    assert " ".join(ax.get_xlabel().split()) == CAVEAT
    tokens = watch(tiny_model, probe_of("double.0", 1, source="tokens of hands"), PROMPT, SEED, 1)
    assert tokens.caveat == "" and tokens.figure().axes[0].get_xlabel() == ""


def test_the_animation_has_a_frame_a_step(seen, tmp_path):
    path = tmp_path / "watch.gif"
    seen[1].gif(path, seconds=0.1)
    with Image.open(path) as image:
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(image)]
        assert len(frames) == STEPS and image.info["duration"] >= 100
    first, last = (np.asarray(frames[i], int) for i in (0, -1))
    assert first.shape == seen[1].frame(0).shape and np.abs(first - last).max() > 20
    exact = seen[1].frame(STEPS - 1).astype(int)
    assert np.abs(last - exact).mean() < 4  # 256 colours
    assert len({tuple(colour) for frame in frames for colour in np.asarray(frame).reshape(-1, 3)}) <= 256


def test_the_live_view_is_one_display_that_is_updated(tiny_model, monkeypatch):
    calls: list[str] = []

    class Handle:
        def update(self, shown):
            calls.append("update")

    def show(shown, display_id):
        assert display_id and shown.data.startswith(b"\x89PNG")
        calls.append("display")
        return Handle()

    monkeypatch.setattr(display, "display", show)
    watch(tiny_model, probe_of("double.0", 1), PROMPT, SEED, STEPS, see=Live())
    assert calls == ["display", "update", "update", "update"]


def test_probes_that_do_not_fit_are_refused(tiny_model):
    wide = LogisticProbe(1.0).fit(np.random.default_rng(0).normal(size=(9, 8)), np.arange(9) % 2)
    wide.metadata_ = {"block": "double.0", "step": 1}
    for probes, word in (
        (wide, "width 8"),
        ([], "run `handscope probe` first"),
        (LogisticProbe(1.0).fit(np.eye(32), np.arange(32) % 2), "what block and step"),
        (probe_of("single.9", 1), "single.9"),
    ):
        with pytest.raises(HandscopeError, match=word):
            watch(tiny_model, probes, PROMPT, SEED, STEPS)


def test_the_saved_probes_of_the_best_block_are_taken(tmp_path):
    for block, step, within, auc in (("double.1", 2, 0.6, 0.9), ("double.1", 1, 0.7, 0.9), ("single.0", 1, 0.66, 0.5)):
        metadata = probe_of(block, step).metadata_ | {"held_out_auc": auc, "held_out_within_auc": within}
        save_probe(probe_of(block, step), tmp_path / f"{block}_{step}.safetensors", metadata)
    assert {probe.metadata_["block"] for probe in saved_probes(tmp_path)} == {"single.0"}
    assert [probe.metadata_["step"] for probe in saved_probes(tmp_path, ["double.1"])] == [1, 2]
    with pytest.raises(HandscopeError, match="no probe of single.9"):
        saved_probes(tmp_path, ["single.9"])
    with pytest.raises(HandscopeError, match="There are no probes"):
        saved_probes(tmp_path / "elsewhere")


def test_the_command_writes_a_strip_and_an_animation(tiny_pipe_folder, finished_run, run_copy, capsys):
    run = run_copy(finished_run)
    save_probe(probe_of("double.1", 2), run.probes_dir / "double.1_2.safetensors", probe_of("double.1", 2).metadata_)
    assert main(["watch", str(run.path), "--prompt", PROMPT, "--seed", "3", "--model", str(tiny_pipe_folder)]) == 0
    assert "double.1 at 4 steps" in capsys.readouterr().out
    names = sorted(path.suffix for path in run.figures_dir.glob("watch_*"))
    assert names == [".gif", ".pdf", ".png", ".svg"]
    assert torch.is_grad_enabled()
