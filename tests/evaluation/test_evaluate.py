"""Arms of a file, drawn on tiny pipelines: what is drawn once, what is refused before, what the tables say."""

import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from diffusers import FluxControlNetModel
from handscope.analysis.statistics.paired import paired_rates
from handscope.cli import main
from handscope.errors import HandscopeError
from handscope.evaluation import evaluate as room
from handscope.evaluation import painted
from handscope.evaluation.evaluate import check, evaluate
from handscope.evaluation.given import given_pictures, slug
from handscope.evaluation.recipe import variants
from handscope.evaluation_file import read_evaluation
from handscope.models.model import load
from handscope.run.folder import Run, sample_id
from handscope.run.part import PartsLeftError
from PIL import Image

PROMPTS = ["a left hand", "an open right hand", "five fingers raised", "a potter at work"]
HEAD = """
folder: {folder}
prompts: {prompts}
seeds: {{first: 0, count: 3}}
scorer: made_plugins:bright
defaults: {{model: {model}, steps: 2}}
arms:
"""


@pytest.fixture
def written(tmp_path, tiny_pipe_folder):
    """Writes a file with these arms, and reads it."""

    def write(*arms: str, more: str = "", prompts=PROMPTS):
        path = tmp_path / "evaluate.yaml"
        head = HEAD.format(folder=tmp_path / "out", model=tiny_pipe_folder, prompts=json.dumps(prompts))
        path.write_text(head + "".join(f"  - {arm}\n" for arm in arms) + more)
        return path

    return write


def drawing(monkeypatch) -> list[tuple[str, int]]:
    """What is drawn from now on: of each arm how many pictures were left when it began."""
    calls, before = [], room.draw_arm

    def counted(model, arm, run, pairs, *rest):
        calls.append((arm.name, len(pairs) - len(run.metadata())))
        return before(model, arm, run, pairs, *rest)

    monkeypatch.setattr(room, "draw_arm", counted)
    return calls


def test_a_list_is_a_sweep() -> None:
    swept = list(variants({"name": "x", "lora": {"path": "a", "scale": [0.5, 1]}, "steps": [2, 4]}))
    assert [one.given["name"] for one in swept] == ["x 2 0.5", "x 2 1", "x 4 0.5", "x 4 1"]
    assert swept[1].doses == {"steps": 2, "lora.scale": 1} and swept[1].given["lora"] == {"path": "a", "scale": 1}
    assert [one.given["name"] for one in variants({"name": "y", "steps": 3})] == ["y"]
    with pytest.raises(HandscopeError, match="different numbers in the list steps"):
        list(variants({"name": "x", "steps": [2, 2]}))


def test_arms_are_drawn_scored_and_compared(written, tmp_path, monkeypatch) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for number in range(2):
        for prompt in PROMPTS:
            picture = np.full((40, 48, 3), 10 + number, np.uint8)
            Image.fromarray(picture).save(given / f"{slug(prompt)}_{number}.jpg", quality=100, subsampling=0)
    path = written(
        "{name: plain}",
        "{name: guided, guidance: [1, 5]}",
        "{name: small, height: 48, width: 48}",
        "{name: away, negative: '', true_cfg: 2}",
        "{name: theirs, pictures: given}",
        "{name: even, of: plain, repair: 'made_plugins:darkened', controls: [worse]}",
        "{name: worse, of: plain, repair: 'made_plugins:inverted', control: true}",
        "{name: broken, of: plain, repair: 'made_plugins:fails'}",
    )
    plan = read_evaluation(path)
    assert plan.baseline == "plain" and plan.variants["guided 5"].group == "guided" and len(plan.pairs) == 12
    calls = drawing(monkeypatch)
    outcome = evaluate(plan)
    assert outcome.failed == {"broken": "RuntimeError: no room"}
    assert sorted(outcome.scored.pictures["arm"].unique()) == sorted(set(plan.arms) - {"broken"})
    rates = outcome.rates.set_index(["arm", "unit", "measure"])
    apart = outcome.contrasts.set_index(["arm", "unit", "measure"])
    bad = {}
    for arm in ("plain", "guided 5"):
        run = Run(plan.folder / arm.replace(" ", "_"))
        bad[arm] = {name: float(run.image(name)[0, 0, 0] % 2) for name in run.metadata()}
        row = rates.loc[arm, "picture", "implausible"]
        assert row["n"] == 12 and row["bad"] == sum(bad[arm].values()) and row["prompts"] == 4
    names = list(bad["plain"])
    prompts = [Run(plan.folder / "plain").metadata()[name]["prompt"] for name in names]
    expected = paired_rates(list(bad["plain"].values()), [bad["guided 5"][name] for name in names], prompts)
    row = apart.loc["guided 5", "picture", "implausible"]
    assert row["design"] == "same noises" and row["p"] == expected.p and row["difference"] == expected.difference
    assert row["mended"] == expected.mended and row["low"] == pytest.approx(expected.low)
    designs = apart.xs(("picture", "implausible"), level=(1, 2))["design"]
    assert designs["small"] == designs["theirs"] == "same prompts" and designs["away"] == "same noises"
    even = apart.loc["even", "picture", "implausible"]
    assert even["after"] == 0 and even["broken"] == 0 and even["control_p"] <= 1
    assert np.isnan(apart.loc["worse", "picture", "implausible"]["q"])  # a control is in no family
    tested = apart.xs(("picture", "implausible"), level=(1, 2)).drop("worse")
    assert (tested["holm"] >= tested["p"]).all() and tested["holm"].notna().all()
    # Nothing is asked of a potter: a measure of what was asked for does not count him.
    assert rates.loc["plain", "picture", "avoided"]["n"] == 9
    assert {len(Run(plan.folder / "theirs").metadata()), rates.loc["theirs", "picture", "implausible"]["n"]} == {8}
    costs = pd.read_csv(plan.folder / "costs.csv").set_index("arm")
    assert costs["calls"][["plain", "away", "even"]].tolist() == [2, 4, 2] and "theirs" not in costs.index
    good = 1 - rates.loc["plain", "picture", "implausible"]["rate"]
    assert costs.loc["plain", "calls_per_good"] == pytest.approx(2 / good)
    table = pd.read_csv(plan.folder / "rates.csv")
    assert len(table) == len(outcome.rates) and (plan.folder / "evaluation.json").exists()

    # Again: what is there is not drawn again, what failed is tried again, the numbers are the same.
    calls.clear()
    shutil.rmtree(plan.folder / "guided_1")
    lost = next((plan.folder / "small" / "samples").glob("*.png"))
    kept = lost.read_bytes()
    lost.unlink()
    again = evaluate(read_evaluation(path))
    assert dict(calls)["guided 1"] == 12 and dict(calls)["plain"] == 0 and lost.read_bytes() == kept
    pd.testing.assert_frame_equal(again.rates, outcome.rates)
    pd.testing.assert_frame_equal(again.contrasts, outcome.contrasts)
    # Other settings under a name that has pictures are refused, and only that arm.
    other = evaluate(read_evaluation(written("{name: plain}", "{name: small, steps: 3}")))
    assert "were drawn with another" in other.failed["small"] and other.contrasts.empty


def test_machines_divide_the_pictures(written) -> None:
    path = written("{name: plain}", "{name: best, best_of: {n: 2, by: 'made_plugins:mean_level'}}")
    with pytest.raises(PartsLeftError, match="pictures are left for others"):
        evaluate(read_evaluation(path), shard=(1, 2))
    outcome = evaluate(read_evaluation(path), shard=(2, 2))
    plain, best = (Run(read_evaluation(path).folder / name) for name in ("plain", "best"))
    lighter = [best.image(name).mean() - plain.image(name).mean() for name in plain.metadata()]
    assert min(lighter) >= 0 < max(lighter)
    rows = best.metadata().values()
    assert {row["calls"] for row in rows} == {4.0} and any(row["seed_taken"] != row["seed"] for row in rows)
    assert set(outcome.scored.pictures["arm"]) == {"plain", "best"}


def test_an_arm_paints_what_is_found_in_anothers_pictures(written, tmp_path, tiny_pipe_folder, monkeypatch) -> None:
    shape = {"attention_head_dim": 16, "num_attention_heads": 2}
    network = FluxControlNetModel.from_transformer(
        load(str(tiny_pipe_folder)).transformer, num_layers=1, num_single_layers=0, **shape
    )
    torch.manual_seed(0)
    for parameter in network.controlnet_blocks.parameters():
        torch.nn.init.normal_(parameter)
    network.save_pretrained(tmp_path / "network")

    def find(picture, prompt):
        mask = np.zeros(picture.shape[:2], bool)
        mask[: 0 if "potter" in prompt else 28] = True  # nothing is found in one
        return mask, mask.astype(np.float32)

    monkeypatch.setattr(painted, "finder", lambda name: find)
    arms = ["{name: plain}",
            "{name: alone, of: plain, repair: {strength: 0.5}}",
            "{name: depth, of: plain, repair: {network: network, control: [0, 3]}}"]  # fmt: skip
    plan = read_evaluation(written(*arms))
    outcome = evaluate(plan)
    assert not outcome.failed and list(plan.arms) == ["plain", "alone", "depth 0", "depth 3"]
    runs = {name: Run(plan.folder / name.replace(" ", "_")) for name in plan.arms}
    for name, row in runs["plain"].metadata().items():
        before, found = runs["plain"].image(name), "potter" not in row["prompt"]
        made = {arm: runs[arm].image(name) for arm in plan.arms if arm != "plain"}
        for picture in made.values():
            assert np.array_equal(picture[28:], before[28:]) and np.array_equal(picture, before) != found
        assert np.array_equal(made["depth 0"], made["depth 3"]) != found
        calls = {arm: run.metadata()[name]["calls"] for arm, run in runs.items()}
        assert calls["plain"] == 2 and calls["alone"] == 2 + found and 4 < calls["depth 3"] < 6 or not found
    designs = outcome.contrasts[outcome.contrasts["unit"] == "picture"]["design"].unique()
    assert designs.tolist() == ["same noises"]
    bits = runs["depth 3"].metadata()
    shutil.rmtree(runs["depth 3"].path)
    evaluate(plan)
    again = runs["depth 3"].metadata()
    assert {name: row["image_sha256"] for name, row in again.items()} == {
        name: row["image_sha256"] for name, row in bits.items()
    }


@pytest.mark.parametrize(
    ("arms", "said"),
    [
        (["{name: plain}", "{name: plain}"], "two arms of the name 'plain'"),
        (["{name: plain}", "{name: Plain}"], "would have one folder"),
        (["{}"], "lacks the key 'name'"),
        (["{name: plain, stepps: 3}"], "did you mean 'steps'"),
        (["{name: plain, steps: 0}"], "whole number of at least 1"),
        (["{name: plain, model: nowhere/at-all-1}"], "Arm 'plain': There is no model"),
        (["{name: plain, negative: ugly}"], "by true_cfg: give a number above 1"),
        (["{name: plain, true_cfg: 2}"], "add negative"),
        (["{name: plain, prompt: better}"], "a text with {prompt} in it"),
        (["{name: plain, height: 33}"], "no multiple of"),
        (["{name: plain, pictures: gone}"], "Expected a folder of pictures"),
        (["{name: plain, pictures: gone, lora: {path: x}}"], "finished pictures"),
        (["{name: plain, lora: {path: gone.safetensors}}"], "There are no weights"),
        (["{name: plain, lora: {path: gone.ckpt}}"], "is a pickle by its name"),
        (["{name: plain, of: plain, repair: 'made_plugins:inverted'}"], "and there is no such arm"),
        (["{name: plain}", "{name: x, of: plain, repair: 'made_plugins:nothing'}"], "There is no function"),
        (["{name: plain}", "{name: x, of: plain, repair: {network: gone}}"], "found no config.json"),
        (["{name: plain}", "{name: x, of: plain, repair: {strength: 0}}"], "or {find: anatomy, network"),
        (["{name: plain, controls: [other]}"], "has to beat 'other'"),
        (["{name: plain, mend: {way: steering, run: gone}}"], "is no labelled run"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(written, tmp_path, arms, said) -> None:
    with pytest.raises(HandscopeError) as error:
        check(read_evaluation(written(*arms)))
    assert said in str(error.value) and str(error.value).count(". ") <= 1
    assert not (tmp_path / "out").exists()


def test_a_file_without_prompts_arms_or_a_scorer_is_refused(written, tmp_path, finished_run) -> None:
    for more, said in (("baseline: other\n", "no arm 'other'"), ("prompts: []\n", "stands there a second time")):
        with pytest.raises(HandscopeError, match=said):
            check(read_evaluation(written("{name: plain}", more=more)))
    path = tmp_path / "other.yaml"
    for text, said in (
        ("folder: x\nprompts: [a]\nseeds: 0-1\narms: []\n", "a list of arms"),
        ("folder: x\nseeds: 0-1\narms: [{name: a, model: organism}]\n", "lacks the key 'prompts'"),
        ("folder: x\nprompts: [a]\nseeds: 0-1\nscorer: magic\narms: [{name: a, model: organism}]\n", "no scorer"),
        ("folder: x\nrun: gone\narms: [{name: a, model: organism}]\n", "no samples in"),
        ("folder: x\nprompts: [a]\nseeds: 0-1\narms: [{name: a}]\n", "says nothing of what draws it"),
        ("folder: x\nprompts: [a]\nseeds: 0-1\nmetrics: [kid]\narms: [{name: a, model: organism}]\n", "a distance"),
        ("folder: x\nprompts: [a]\nseeds: 0-1\nmetrics: [fid]\narms: [{name: a, model: organism}]\n", "no metric"),
    ):
        path.write_text(text)
        with pytest.raises(HandscopeError, match=said):
            check(read_evaluation(path))
    path.write_text(f"folder: x\nrun: {finished_run.path}\narms: [{{name: a, model: organism}}]\n")
    assert read_evaluation(path).pairs[0] == tuple(finished_run.samples().loc[0, ["prompt", "seed"]])


def test_pictures_are_known_by_a_table_or_by_their_names(tmp_path) -> None:
    picture = Image.new("RGB", (40, 40))
    names = [f"{sample_id(PROMPTS[0], 7)}.png", "a_left_hand.png", "five-fingers-raised 12.png"]
    names.append("a potter at work/1.png")
    (tmp_path / "a potter at work").mkdir()
    for name in names:
        picture.save(tmp_path / name)
    found = {one.path.relative_to(tmp_path).as_posix(): (one.prompt, one.number)
             for one in given_pictures(tmp_path, PROMPTS)}  # fmt: skip
    assert found == {names[0]: (PROMPTS[0], 7), names[1]: (PROMPTS[0], 1), names[2]: (PROMPTS[2], 12),
                     names[3]: (PROMPTS[3], 1)}  # fmt: skip
    picture.save(tmp_path / "another_thing.png")
    with pytest.raises(HandscopeError, match="1 of 5 pictures .* another_thing.png among them"):
        given_pictures(tmp_path, PROMPTS)
    rows = ["file_name,prompt,seed", "another_thing.png,a left hand,3", "gone.png,a left hand,4"]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    with pytest.raises(HandscopeError, match="gone.png among them"):
        given_pictures(tmp_path, PROMPTS)


def test_an_evaluation_that_is_killed_goes_on(written, tmp_path) -> None:
    path = written("{name: plain}", "{name: more, steps: 3}", more="batch_size: 1\n")
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        with suppress(BaseException):
            evaluate(read_evaluation(path))
        os._exit(0)
    samples, end = tmp_path / "out" / "more" / "samples", time.monotonic() + 200
    while len(list(samples.glob("[!.]*.png"))) < 3 and time.monotonic() < end:
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    begun = {one.name: one.stat().st_mtime_ns for one in samples.glob("[!.]*.png")}
    assert len(begun) >= 3
    outcome = evaluate(read_evaluation(path))
    assert not outcome.failed and outcome.rates.query("measure == 'undetected'")["n"].tolist() == [12, 12]
    kept = {row["file_name"] for row in Run(tmp_path / "out" / "more").metadata().values()}
    assert len(kept) == 12 and sum(samples.joinpath(name).stat().st_mtime_ns == at for name, at in begun.items()) >= 2
    shutil.copytree(samples, tmp_path / "after")
    shutil.rmtree(tmp_path / "out")
    evaluate(read_evaluation(path))
    for one in samples.glob("[!.]*.png"):
        assert one.read_bytes() == (tmp_path / "after" / one.name).read_bytes()


def bad_of(run: Run) -> int:
    return sum(run.image(name)[0, 0, 0] % 2 for name in run.metadata())


def test_the_command_says_what_failed_and_how_it_went(written, capfd, tmp_path) -> None:
    path = written("{name: plain}", "{name: broken, of: plain, repair: 'made_plugins:fails'}")
    assert main(["evaluate", str(path), "--dry-run"]) == 0 and "2 arms on 12 pairs" in capfd.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(["evaluate", str(path)]) == 1
    said = capfd.readouterr().out
    assert "failed    broken: RuntimeError: no room" in said and "plain: " in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "The arm broken failed" in page and "There is nothing to compare with plain" in page
    held = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1].replace("<\\/", "</"))
    assert len(held["rows"]) == 12 and all((tmp_path / "out" / row[4]).is_file() for row in held["rows"])
    assert Counter(held["outcomes"][row[1]] for row in held["rows"])["implausible"] == bad_of(
        Run(tmp_path / "out" / "plain")
    )
    assert main(["evaluate", str(Path(tmp_path / "gone.yaml"))]) == 2
