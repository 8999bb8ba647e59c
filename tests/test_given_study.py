"""A study of pictures that were given: one file from a folder of them to the report."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from handscope.errors import HandscopeError
from handscope.run.folder import Run
from handscope.study import Study
from PIL import Image

ASKED = {"steps": 4, "blocks": ["single.2"], "read_steps": [1], "permutations": 19, "probe_permutations": 9, "folds": 3}


def pictures(folder: Path, numbers: range) -> None:
    """The broken ones are darker; four at a time have one prompt."""
    rows = ["file_name,prompt,label"]
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255 - 120 * (number % 2), (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    for path in sorted(folder.glob("*.png"), key=lambda path: int(path.stem)):
        number = int(path.stem)
        rows.append(f"{path.name},cup {number // 4},{'broken' if number % 2 else 'whole'}")
    (folder / "metadata.csv").write_text("\n".join(rows))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, tiny_pipe_folder: Path) -> Path:
    """A study file beside a folder of 24 pictures."""
    folder = tmp_path_factory.mktemp("given")
    pictures(folder / "cups", range(24))
    given = {"folder": "cups", "good": ["whole"], "bad": ["broken"]}
    study = {"run": str(folder / "run"), "model": str(tiny_pipe_folder), "pictures": given, **ASKED}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    return folder / "study.yaml"


def test_it_goes_from_the_folder_to_the_report(path: Path) -> None:
    study = Study.from_yaml(path)
    assert study.labels == "existing" and study.prompts == study.seeds == ()
    assert [result.stage for result in study.run() if result.ran][:3] == ["generate", "label", "extract"]
    run = Run(study.folder)
    assert len(run.samples()) == 24 and "were given" in (run.path / "report.html").read_text()
    assert [result.stage for result in study.run() if result.ran] == []
    pictures(path.parent / "cups", range(24, 28))
    assert next(study.stages()).ran
    assert len(run.samples()) == 28


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"prompts": ["a cup"]}, "key 'prompts': given pictures have no prompts"),
        ({"pictures": "nowhere"}, "key 'pictures': there is no .*nowhere: give a folder"),
        ({"pictures": {"folder": "cups", "fitt": "crop"}}, "pictures has a key 'fitt', .* did you mean 'fit'"),
        ({"pictures": {"folder": "cups", "fit": "cut"}}, "Expected 'fit' in pictures to be one of crop, pad, stretch"),
        ({"pictures": 3}, "Expected 'pictures' in .* to be a folder of pictures"),
        ({"also": ["commit"]}, "commit follows a sample's path from noise"),
        ({"pictures": None}, "lacks the key 'prompts'"),
    ],
)
def test_what_does_not_fit_is_said_at_once(path: Path, changed: dict, said: str) -> None:
    with pytest.raises(HandscopeError, match=said):
        Study.from_yaml(path, changed)
