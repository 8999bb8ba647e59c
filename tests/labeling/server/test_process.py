"""The labelling server as a command: killed, interrupted, on a port that is taken."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from handscope.errors import HandscopeError
from handscope.labeling.database.labels import Labels
from handscope.labeling.order import make_order
from handscope.labeling.server.server import Place, listen
from handscope.labeling.server.session import Session
from handscope.run.folder import Run
from made_runs import annotating, cells

pytestmark = pytest.mark.process


def command(run: Run, *options: str, path: Path | None = None) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "handscope", "label", str(path or run.path), "--no-open", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )


def said_address(server: subprocess.Popen) -> tuple[str, str, str]:
    """(what was said, the address, the token) once a server can be reached."""
    said = ""
    for line in server.stdout:
        said += line
        if "Ctrl-C" in line:
            found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=(\S+)", said)
            assert found, said
            return said, found[1], found[2]
    raise AssertionError(said + server.stderr.read())


def test_a_server_killed_in_mid_stroke_has_all_that_it_acknowledged(run: Run) -> None:
    server = command(run, "--port", "0")
    said, address, token = said_address(server)
    assert "6 samples" in said and "ssh -N -L" in said and "valid until the server ends" in said
    acknowledged: list[int] = []
    enough = threading.Event()

    def paint() -> None:
        with annotating(address, "Ann", token) as ann:
            sample = ann.sample(ann.queue()[0]["sample"])
            while True:
                try:
                    answer = ann.stroke(sample, cells(sample, len(acknowledged) % 3))
                except httpx.TransportError:
                    return
                assert answer.status_code == 201
                sample["revision"] = answer.json()["revision"]
                acknowledged.append(sample["revision"])
                if len(acknowledged) == 25:
                    enough.set()

    painter = threading.Thread(target=paint)
    painter.start()
    assert enough.wait(60)
    server.kill()
    painter.join(60)
    server.communicate()
    name = next(sample for _, sample, *_ in Labels(run.labels_path).states())
    stored = [state.revision for state in reversed(Labels(run.labels_path).history(name))]
    assert stored[: len(acknowledged)] == acknowledged and len(stored) <= len(acknowledged) + 1
    server = command(run, "--port", address.rpartition(":")[2])
    _, again, token = said_address(server)
    assert again == address, "the port is free at once, so that the browser's journal is of the same address"
    with annotating(address, "Ann", token) as ann:
        assert ann.sample(name)["revision"] == stored[-1]
    server.send_signal(signal.SIGINT)
    out, err = server.communicate(timeout=60)
    assert server.returncode == 0 and err == "" and "label" in out


def test_a_taken_port_is_said(run: Run) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        server = command(run, "--port", str(port))
        _, err = server.communicate(timeout=60)
    assert server.returncode == 2 and f"Port {port} of 127.0.0.1 is taken" in err and f"--port {port + 1}" in err


@pytest.mark.parametrize(("host", "port"), [("203.0.113.77", 0), ("no.such.name.invalid", 0), ("127.0.0.1", 99999)])
def test_an_address_that_is_not_this_machines_is_refused(host: str, port: int) -> None:
    with pytest.raises(HandscopeError, match=f"Could not listen on {host}, port {port}"):
        listen(host, port)


def test_another_address_is_warned_of(run: Run) -> None:
    server = command(run, "--port", "0", "--host", "0.0.0.0")
    said_address(server)
    server.send_signal(signal.SIGINT)
    _, err = server.communicate(timeout=60)
    assert "other machines can reach" in err and server.returncode == 0


def test_places_are_said_as_a_browser_takes_them() -> None:
    assert Place("::1", 5, "t").address == "http://[::1]:5/?token=t"
    assert Place("0.0.0.0", 5, "t").address == "http://127.0.0.1:5/?token=t" and Place("::", 5, "t").open_to_others
    assert Place("127.0.0.1", 5, "t").tunnel.startswith("ssh -N -L 5:127.0.0.1:5 USER@")
    assert Place("10.1.2.3", 5, "t").tunnel.startswith("ssh -N -L 5:10.1.2.3:5 ")
    assert Place("::1", 5, "t").tunnel.startswith("ssh -N -L 5:[::1]:5 ") and not Place("::1", 5, "t").open_to_others


def test_a_run_without_samples_and_a_path_without_run_are_refused(tmp_path: Path) -> None:
    Run(tmp_path / "empty")
    for name, message in (("empty", "run generate first"), ("none", "no run folder")):
        server = command(Run(tmp_path / "empty"), path=tmp_path / name)
        assert message in server.communicate(timeout=60)[1] and server.returncode == 2
    assert not (tmp_path / "none").exists()


def test_a_name_that_nobody_could_choose_is_refused_at_once(run: Run) -> None:
    for names, message in (([f"Ann,{'x' * 41}"], "1 to 40"), (["Ann", "handscope"], "made without looking")):
        with pytest.raises(HandscopeError, match=message):
            Session(run, make_order(run), ",".join(names).split(","))


def test_an_answer_waits_for_no_acknowledgement_of_its_first_part() -> None:
    async def no_delay() -> int:
        accepted = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            own = writer.get_extra_info("socket")
            accepted.set_result(own.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(connected, sock=listener):
                with socket.create_connection(listener.getsockname()):
                    return await accepted

    assert asyncio.run(no_delay())
