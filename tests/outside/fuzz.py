"""Damaged files for every reader, made by atheris: ``python tests/outside/fuzz.py READER [--seconds 600]``.

By hand, and not among the tests: it needs ``pip install atheris``. A reader may raise `HandscopeError` and nothing
else. Whatever else it raises is kept in DIR, one file for each place in handscope that it came from, and the search
goes on; a hang of 20 seconds or 2 GB of memory ends a child, which is started again until the time is over.
``--replay FILE`` reads one file that was kept and shows the traceback. What was found is in README.md, and a test each.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
os.environ.setdefault("OMP_NUM_THREADS", "1")
ARGUMENTS = sys.argv[1:]

if __name__ == "__main__" and "--child" in ARGUMENTS:
    import atheris

    with atheris.instrument_imports(include=["handscope", "yaml", "json"]):
        import handscope.commands.anatomy_known
        import handscope.commands.extract
        import handscope.extract.store.check
        import handscope.extract.store.store
        import handscope.extract.survey.surveyed
        import handscope.labeling.exchange.importing
        import handscope.probes.saved
        import handscope.run.folder
        import handscope.run.record
        import handscope.run.trajectory
        import handscope.study  # noqa: F401

from handscope.errors import HandscopeError  # noqa: E402


@dataclass(frozen=True)
class Reader:
    """A kind of file: its place below the folder, whole ones to begin with, and what reads them."""

    place: str
    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path, Path], None]


def _run(folder: Path):
    from made_runs import make_run

    return make_run(folder, n=4, prompts=2, side=16)


def _labelled(folder: Path):
    import numpy as np
    from handscope.labeling.database.labels import Annotation, Labels

    run = _run(folder)
    grid = np.array([[0, 1], [2, 2]], np.uint8)
    Labels(run.labels_path).add(
        [
            Annotation(sample, row["image_sha256"], grid, (grid > 1).astype(np.uint8), "good", author="ada", source="x")
            for sample, row in run.metadata().items()
        ]
    )
    return run


def settings_seeds(folder: Path) -> list[bytes]:
    run = _run(folder)
    from handscope.labeling.subject import load_subject, set_subject

    run.write_settings(
        {
            "model": {"weight_hash": "0" * 64, "dtype": "float32"},
            "generation": {"steps": 4, "scheduler": "a b", "trajectories": True},
        }
    )
    first = run.settings_path.read_bytes()
    set_subject(run, load_subject(Path(__file__).parents[1] / "support" / "data" / "bird.yaml"))
    return [first, run.settings_path.read_bytes(), b"a: 1\n", b"generation: {steps: 4}\n"]


def read_settings(path: Path, folder: Path) -> None:
    from handscope.labeling.grid import token_side
    from handscope.labeling.subject import subject_of
    from handscope.run.folder import Run
    from handscope.run.record import made_from
    from handscope.stages import REPORT

    run = Run(folder)
    for use in (
        lambda: run.settings,
        lambda: subject_of(run),
        lambda: token_side(run),
        lambda: run.trajectory_metadata(next(iter(run.metadata().values()))),
        lambda: made_from(folder, REPORT, {}),
        lambda: run.write_settings({"generation": {"steps": 4}, "labels": {"ada": 1}}),
    ):
        _allowed(use)


def metadata_seeds(folder: Path) -> list[bytes]:
    whole = _run(folder).metadata_path.read_bytes()
    return [whole, whole[: whole.index(b"\n") + 1], whole[:-1]]


def read_metadata(path: Path, folder: Path) -> None:
    from handscope.commands.anatomy_known import raised_by_prompts
    from handscope.labeling.grid import grid
    from handscope.run.folder import Run

    run = Run(folder)
    _allowed(lambda: run.samples())
    _allowed(lambda: [(grid(run, sample), run.image(sample)) for sample in run.metadata()])
    _allowed(lambda: raised_by_prompts([run.samples_dir / "a.png"]))


def study_seeds(folder: Path) -> list[bytes]:
    datasets = Path(__file__).parents[2] / "datasets"
    return [
        *(path.read_bytes() for path in sorted(datasets.glob("*.yaml"))),
        b"run: x\nprompts: [a hand]\nseeds: {first: 0, count: 2}\nsteps: 4\nguidance: 1.5\nalso: [survey]\n",
    ]


def read_study(path: Path, folder: Path) -> None:
    from handscope.study import Study

    _allowed(lambda: Study.from_yaml(path))


def subject_seeds(folder: Path) -> list[bytes]:
    support = Path(__file__).parents[1] / "support" / "data" / "bird.yaml"
    brought = Path(__file__).parents[2] / "labeling" / "subjects"
    return [support.read_bytes(), *(path.read_bytes() for path in sorted(brought.glob("*.yaml")))]


def read_subject(path: Path, folder: Path) -> None:
    from handscope.labeling.subject import load_subject

    def use() -> None:
        subject = load_subject(path)
        subject.stated("a bird with two wings, from the left")
        subject.selection("subject")

    _allowed(use)


def label_seeds(folder: Path) -> list[bytes]:
    import sqlite3

    run = _labelled(folder)
    with sqlite3.connect(run.labels_path) as database:
        database.execute("PRAGMA journal_mode = DELETE")
        database.execute("VACUUM")
    database.close()
    return [run.labels_path.read_bytes()]


def read_labels(path: Path, folder: Path) -> None:
    from handscope.labeling.database.labels import Labels

    labels = Labels(path)
    for use in (
        labels.current, labels.by_author, labels.states, labels.table, labels.fingerprint, labels.ratings,
        labels.orders, labels.last_revision, labels.judgements, labels.reviewed,
    ):  # fmt: skip
        _allowed(use)
    for left in path.parent.glob(f"{path.name}-*"):
        left.unlink()


def shard_seeds(folder: Path) -> list[bytes]:
    from made_stores import make_shard

    make_shard(folder, "s00", 1)
    make_shard(folder, "s01", 1, compression="lossless")
    return [(folder / "shards" / f"s0{number}.h5").read_bytes() for number in (0, 1)]


def store_seeds(folder: Path) -> list[bytes]:
    from handscope.extract.store.consolidate import consolidate
    from made_stores import make_folder

    make_folder(folder, range(3))
    return [consolidate(folder).read_bytes()]


def read_store(path: Path, folder: Path) -> None:
    from handscope.extract.store.check import check, info
    from handscope.extract.store.store import ActivationStore

    def use() -> None:
        store = ActivationStore(path, labels={})
        for sample in store.samples:
            store.sample(sample)
        for cell in store.cells:
            store.read(cell.block, cell.step)

    _allowed(use)
    _allowed(lambda: check(path))
    _allowed(lambda: info(path))


def survey_seeds(folder: Path) -> list[bytes]:
    import numpy as np
    from handscope.extract.survey.surveyed import SCHEMA, write_moments

    attrs = {"schema": SCHEMA, "plan": "{}", "sample": "s00", "weight_hash": "0", "model_dtype": "float32"}
    write_moments(folder / "s.h5", np.zeros((2, 2, 3, 4), np.float32), [3, 4], np.zeros(2, "i4"), attrs)
    return [(folder / "s.h5").read_bytes()]


def read_survey(path: Path, folder: Path) -> None:
    from handscope.extract.survey.surveyed import reading

    def use() -> None:
        with reading(path) as file:
            file["moments"][:], file["counts"][:], dict(file.attrs)

    _allowed(use)


def tensor_seeds(folder: Path) -> list[bytes]:
    import numpy as np
    import torch
    from handscope.analysis.moments import save_arrays
    from handscope.probes.ridge import RidgeProbe
    from handscope.probes.saved import save_probe
    from handscope.run.trajectory import Trajectory

    path = Trajectory(torch.zeros(3, 2, 4), torch.zeros(3), torch.zeros(2), torch.zeros(2))
    path.save(folder / "t", {"sample": "s"})
    probe = RidgeProbe().fit(np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32), [0, 1] * 4)
    save_probe(probe, folder / "p", {"block": "double.0", "step": 2})
    save_arrays(folder / "a", {"count": np.zeros(1), "mean": np.zeros((1, 2)), "m2": np.zeros((1, 2))})
    return [(folder / name).read_bytes() for name in "tpa"]


def read_tensors(path: Path, folder: Path) -> None:
    from handscope.analysis.moments import Moments
    from handscope.probes.saved import load_probe
    from handscope.run.trajectory import Trajectory

    _allowed(lambda: Trajectory.load(path, {}))
    _allowed(lambda: load_probe(path))
    _allowed(lambda: Moments.load(path))


def _exported(suffix: str) -> Callable[[Path], list[bytes]]:
    def seeds(folder: Path) -> list[bytes]:
        from handscope.labeling.exchange.export import export_labels

        run = _labelled(folder)
        export_labels(run, folder / f"l{suffix}")
        return [(folder / f"l{suffix}").read_bytes()]

    return seeds


def png_list_seeds(folder: Path) -> list[bytes]:
    from handscope.labeling.exchange.export import export_labels

    export_labels(_labelled(folder), folder / "pngs")
    return [(folder / "pngs" / "labels.jsonl").read_bytes()]


def read_exported(path: Path, folder: Path) -> None:
    from handscope.labeling.exchange.importing import import_labels
    from handscope.run.folder import Run

    run = Run(folder)
    _allowed(lambda: import_labels(run, path.parent if path.name == "labels.jsonl" else path))
    run.labels_path.unlink(missing_ok=True)


def picture_seeds(folder: Path) -> list[bytes]:
    run = _run(folder)
    from PIL import Image

    picture, found = Image.open(run.image_path(next(iter(run.metadata())))), [b""]
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "TIFF"):
        held = io.BytesIO()
        picture.save(held, kind)
        found.append(held.getvalue())
    return found


def read_picture(path: Path, folder: Path) -> None:
    from handscope.anatomy.read.pictures import read_picture
    from handscope.run.folder import Run

    run = Run(folder)
    _allowed(lambda: run.image(path.stem))
    read_picture(path)


def record_seeds(folder: Path) -> list[bytes]:
    from handscope.run.record import made_from, set_fresh
    from handscope.stages import LABEL

    run = _labelled(folder)
    set_fresh(run.path, LABEL, made_from(run.path, LABEL, {"labels": "auto"}), "Labelled.")
    return [(folder / "record.json").read_bytes(), b"{}"]


def read_record(path: Path, folder: Path) -> None:
    from handscope.run.record import entry_of, fresh, made_from
    from handscope.stages import STAGES

    for stage in STAGES[:3]:
        _allowed(lambda stage=stage: fresh(folder, stage, made_from(folder, stage, {})))
        _allowed(lambda stage=stage: entry_of(folder, stage))


def plan_seeds(folder: Path) -> list[bytes]:
    from made_stores import PLAN

    return [PLAN.to_json().encode(), b'{"blocks": null, "steps": [2, 1], "of": 2}']


def read_plan(path: Path, folder: Path) -> None:
    from handscope.commands.extract import _plan_of

    _allowed(lambda: _plan_of(path, {}))


def prompt_seeds(folder: Path) -> list[bytes]:
    return ["a hand\n# no\n\n an open hand \u2028x\n".encode(), b"\xef\xbb\xbfa hand\r\nb\r\n"]


def read_prompts(path: Path, folder: Path) -> None:
    from handscope.run.prompts import read_prompts

    _allowed(lambda: read_prompts(path))


READERS = {
    "run.yaml": Reader("run.yaml", settings_seeds, read_settings),
    "metadata.jsonl": Reader("samples/metadata.jsonl", metadata_seeds, read_metadata),
    "study": Reader("study.yaml", study_seeds, read_study),
    "subject": Reader("subject.yaml", subject_seeds, read_subject),
    "labels.sqlite": Reader("other.sqlite", label_seeds, read_labels),
    "shard": Reader("shards/s00.h5", shard_seeds, read_store),
    "store": Reader("store.h5", store_seeds, read_store),
    "survey": Reader("survey/s00.h5", survey_seeds, read_survey),
    "safetensors": Reader("a.safetensors", tensor_seeds, read_tensors),
    "npz": Reader("l.npz", _exported(".npz"), read_exported),
    "coco": Reader("l.json", _exported(".json"), read_exported),
    "tokens": Reader("l.csv", _exported(".csv"), read_exported),
    "pngs": Reader("pngs/labels.jsonl", png_list_seeds, read_exported),
    "picture": Reader("samples/PICTURE.png", picture_seeds, read_picture),
    "record": Reader("record.json", record_seeds, read_record),
    "plan": Reader("plan.json", plan_seeds, read_plan),
    "prompts": Reader("prompts.txt", prompt_seeds, read_prompts),
}


def _allowed(use: Callable[[], object]) -> None:
    with suppress(HandscopeError):
        use()


def place_of(name: str, folder: Path) -> Path:
    """Where the damaged file goes: the picture under the name of a sample that there is."""
    place = READERS[name].place
    if "PICTURE" in place:
        from handscope.run.folder import Run

        place = place.replace("PICTURE", next(iter(Run(folder).metadata())))
    path = folder / place
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def signature(error: BaseException) -> str:
    """The kind of an exception and the deepest line of handscope in its traceback."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" not in frame.filename]
    own = [frame for frame in frames if "site-packages" not in frame.filename and "/lib/python" not in frame.filename]
    last = own[-1] if own else None
    return f"{type(error).__name__} {'/'.join(Path(last.filename).parts[-2:])}:{last.lineno}" if last else repr(error)


def child(name: str, folder: Path, corpus: Path, out: Path, seconds: int) -> None:
    reader, known = READERS[name], {path.read_text().splitlines()[0] for path in out.glob("*.txt")}
    path = place_of(name, folder)
    warnings.simplefilter("ignore")

    def one(data: bytes) -> None:
        path.write_bytes(data)
        try:
            reader.read(path, folder)
        except Exception as error:
            said = signature(error)
            if said not in known:
                known.add(said)
                kept = out / hashlib.sha256(said.encode()).hexdigest()[:12]
                kept.with_suffix(".bin").write_bytes(data)
                kept.with_suffix(".txt").write_text(f"{said}\n{traceback.format_exc()}")

    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2000", f"-artifact_prefix={out}/hard-"]
    atheris.Setup([sys.argv[0], *options, "-print_final_stats=1", "-max_len=20000", str(corpus)], one)
    atheris.Fuzz()


def search(name: str, seconds: int, out: Path) -> None:
    """Run children until the time is over, and say what was found."""
    out.mkdir(parents=True, exist_ok=True)
    begun, runs = time.monotonic(), 0
    base = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=base) as held:
        folder, corpus = Path(held) / "run", Path(held) / "corpus"
        folder.mkdir()
        corpus.mkdir()
        for number, seed in enumerate(READERS[name].seeds(folder)):
            (corpus / str(number)).write_bytes(seed)
        while (left := int(seconds - (time.monotonic() - begun))) > 0:
            command = [sys.executable, __file__, name, "--child", json.dumps([str(folder), str(corpus), left])]
            done = subprocess.run([*command, "--out", str(out)], capture_output=True, text=True, errors="replace")
            lines = [line for line in done.stderr.splitlines() if line.startswith("stat::number_of_executed_units")]
            runs += int(lines[-1].split()[-1]) if lines else 0
            (out / "last.log").write_text(done.stderr[-20000:])
            if done.returncode and time.monotonic() - begun < 5:
                sys.exit(done.stderr[-3000:])
    found = sorted(path.read_text().splitlines()[0] for path in out.glob("*.txt"))
    hard = sorted(path.name for path in out.glob("hard-*"))
    print(f"{name}: {runs} files in {time.monotonic() - begun:.0f} s; {len(found)} raised otherwise {found} {hard}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--replay", type=Path)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    out = arguments.out or Path("fuzz") / arguments.reader
    if arguments.child:
        folder, corpus, seconds = json.loads(arguments.child)
        child(arguments.reader, Path(folder), Path(corpus), out, seconds)
    elif arguments.replay:
        with tempfile.TemporaryDirectory() as held:
            folder = Path(held)
            READERS[arguments.reader].seeds(folder)
            path = place_of(arguments.reader, folder)
            path.write_bytes(arguments.replay.read_bytes())
            READERS[arguments.reader].read(path, folder)
    else:
        search(arguments.reader, arguments.seconds, out)


if __name__ == "__main__":
    main()
