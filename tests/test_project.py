"""The project as others install it: what a wheel holds, what an import costs, which files say the same thing twice."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
NOT_PACKAGED = (".ci", ".github", "tests", "bench", "docs")


def run(*command: str | Path, **options) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=240, **options)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def tree() -> list[str]:
    """Every file of the project that git knows or would take."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the git checkout to know which files belong to the project")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=ROOT).splitlines()
    return [name for name in listed if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tree: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the tree, so that nothing is left in the checkout."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in tree:
        if not name.startswith(tuple(f"{folder}/" for folder in NOT_PACKAGED)):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", out, source)
    (path,) = out.glob("*.whl")
    return path


@pytest.mark.process
@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(wheel: Path, tree: list[str]) -> None:
    expected = {
        name for name in tree if name.partition("/")[0] not in NOT_PACKAGED and (name.endswith(".py") or "/" in name)
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not re.match(r"handscope-[^/]+\.dist-info/", name)}
        licence = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert names == {f"handscope/{name}" for name in expected}
    assert licence


@pytest.mark.process
@pytest.mark.slow
def test_wheel_installs_and_imports_alone(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, wheel)
    code = "import handscope, handscope.cli as cli; print(handscope.__file__); print(handscope.__version__)"
    environment = {**os.environ, "PYTHONPATH": str(target)}
    where, version = run(sys.executable, "-c", code, cwd=tmp_path, env=environment).split()
    assert Path(where) == target / "handscope" / "__init__.py"
    assert f"handscope-{version}-" in wheel.name


@pytest.mark.process
def test_import_is_light() -> None:
    heavy = ("torch", "diffusers", "transformers", "numpy", "pandas", "sklearn", "matplotlib", "h5py", "rich", "yaml")
    code = f"import sys, handscope, handscope.cli; print([name for name in {heavy} if name in sys.modules])"
    assert run(sys.executable, "-c", code).strip() == "[]"


def test_every_public_name_is_there() -> None:
    import handscope

    for name in handscope.__all__:
        assert getattr(handscope, name) is not None, name
    assert set(handscope.__all__) <= set(dir(handscope))
    assert callable(handscope.extract)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        handscope.nonsense  # noqa: B018


def test_version_is_said_alike_everywhere(project: dict) -> None:
    import handscope

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["project"]["version"] == handscope.__version__ == citation["version"]
    assert f"## {handscope.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_environment_is_in_step_with_pyproject(project: dict) -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, installed = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert python == f"python{project['project']['requires-python']}"
    assert pip == "pip"
    extras = project["project"]["optional-dependencies"]
    assert installed["pip"] == ["--constraint constraints.txt", f"--editable .[{','.join(extras)}]", "jupyterlab"]


def test_constraints_pin_every_requirement_within_its_range(project: dict) -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            pinned[canonicalize_name(name)] = version
    for group in [project["project"]["dependencies"], *project["project"]["optional-dependencies"].values()]:
        for requirement in map(Requirement, group):
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), f"{requirement} excludes the pinned {version}"


def test_data_folders_are_no_packages() -> None:
    for folder in ("tests", "datasets", "notebooks", "bench", "docs", "templates"):
        assert not (ROOT / folder / "__init__.py").exists(), folder
    assert not (ROOT / "conftest.py").exists()


def test_support_modules_hide_no_installed_one() -> None:
    from importlib.metadata import packages_distributions

    support = {path.stem for path in (ROOT / "tests" / "support").iterdir()} - {"data", "__pycache__"}
    assert {"made_tiny", "made_runs"} <= support
    assert support.isdisjoint(sys.stdlib_module_names | packages_distributions().keys())
