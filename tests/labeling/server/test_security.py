"""The labelling server: who may ask for what, how much, and how long it may take."""

import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from handscope.commands.label import _door
from handscope.labeling.server import security
from handscope.labeling.server.connections import Connection
from handscope.run.folder import Run
from made_runs import TOKEN, Annotator, annotating, cells, make_run, serving


def test_who_has_no_token_gets_nothing(address: str, run: Run) -> None:
    name = next(iter(run.metadata()))
    paths = ["", "page/index.html", "openapi.json", "nothing", "api/session", "api/queue", "api/progress"]
    paths += [f"api/samples/{name}{part}" for part in ("", "/image", "/suggestions", "/history")]
    with httpx.Client(base_url=address) as client:
        for path in paths:
            assert client.get(f"/{path}").status_code == 401, path
        assert client.post("/api/annotator", json={"name": "x"}).status_code == 401
        for wrong in ("", "x", TOKEN[:-1], TOKEN + "x", "é" * 20):
            refused = client.get("/", params={"token": wrong})
            assert refused.status_code == (403 if wrong else 401) and "paste" not in refused.cookies
            assert refused.text.count("<p>") == 1 and "handscope label" in refused.text
            assert client.get("/api/session", headers={"cookie": f"handscope={wrong}".encode()}).status_code == 401
        assert client.get("/api/session", params={"token": TOKEN}).status_code == 401, "only / takes it from an address"
        entered = client.get("/", params={"token": TOKEN})
        assert entered.status_code == 303 and entered.headers["location"] == "/"
        assert re.search(r"^handscope_\w+=\S+; HttpOnly; Path=/; SameSite=lax$", entered.headers["set-cookie"])
        assert client.get("/api/session").status_code == 200


def test_two_servers_of_one_run_leave_each_other_their_cookies(run: Run) -> None:
    with serving(run) as first, serving(run) as second, httpx.Client() as client:
        for address in (first, second):
            client.get(f"{address}/", params={"token": TOKEN})
        assert len(client.cookies.jar) == 2, "a browser shares cookies between ports"
        assert [client.get(f"{address}/api/session").status_code for address in (first, second)] == [200, 200]


def test_the_names_of_two_runs_are_told_apart(tmp_path: Path, run: Run) -> None:
    other = make_run(tmp_path / "others")
    with serving(run) as first, serving(other) as second, httpx.Client() as client:
        for address, name in ((first, "ada"), (second, "ben")):
            client.get(f"{address}/", params={"token": TOKEN})
            client.post(f"{address}/api/annotator", json={"name": name})
        said = [client.get(f"{address}/api/session").json()["annotator"] for address in (first, second)]
    assert said == ["ada", "ben"], "a browser shares cookies between ports"


def test_the_browser_is_started_without_the_token(tmp_path: Path) -> None:
    page = _door(tmp_path, f"http://127.0.0.1:1/?token={TOKEN}")
    assert TOKEN not in page.as_uri() and TOKEN in page.read_text()
    assert stat.S_IMODE(page.stat().st_mode) == 0o600, "others on this machine cannot read it"


def test_the_token_is_compared_in_constant_time(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    real = security.hmac.compare_digest
    monkeypatch.setattr(security.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or real(a, b))
    httpx.get(f"{address}/", params={"token": "wrong"})
    assert compared == [(b"wrong", TOKEN.encode())]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:1", "127.0.0.1.evil.example", "[::2]", "", "10.0.0.1"])
def test_a_name_that_is_not_its_own_is_refused(ann: Annotator, host: str) -> None:
    refused = ann.client.get("/api/session", headers={"host": host})
    assert refused.status_code in (400, 403)


@pytest.mark.parametrize("host", ["127.0.0.1:9", "localhost", "LOCALHOST:8750", "[::1]:8750"])
def test_a_tunnel_may_have_another_port(ann: Annotator, host: str) -> None:
    assert ann.client.get("/api/session", headers={"host": host}).status_code == 200


def test_any_address_of_the_machine_will_do_where_it_listens_on_all(run: Run) -> None:
    with serving(run, host="0.0.0.0") as address, annotating(address, "Ann") as ann:
        for host, status in (("192.168.1.5:8750", 200), (socket.gethostname(), 200), ("evil.example", 403)):
            assert ann.client.get("/api/session", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [("http://127.0.0.1:1", 403), ("https://evil.example", 403), ("null", 403), ("", 403), ("own", 200), (None, 200)],
)
def test_another_sites_page_may_not_write(ann: Annotator, address: str, origin: str | None, status: int) -> None:
    headers = {} if origin is None else {"origin": address if origin == "own" else origin}
    assert ann.client.post("/api/annotator", json={"name": "x"}, headers=headers).status_code == status
    assert "access-control-allow-origin" not in ann.client.options("/api/annotator", headers=headers).headers


def test_every_answer_says_what_a_browser_may_do_with_it(ann: Annotator, address: str) -> None:
    answers = [ann.get("session"), ann.get("nothing"), httpx.get(address), httpx.get(f"{address}/?token=x")]
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer" and "server" not in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/page/../api.py", "/page/..%2fapi.py", "/page/%2e%2e%2fapi.py", "/page/%2fetc%2fpasswd", "/page/..\\api.py",
        "/page/.", "/page/index.html%00.js", "/page//etc/passwd", "/api/samples/..%2f..%2frun.yaml/image",
        "/api/samples/../../run.yaml/image", "/api/samples/%2e%2e%2frun/image", "/api/samples/metadata.jsonl/image",
    ],
)  # fmt: skip
def test_paths_cannot_leave_the_run_or_the_page(ann: Annotator, address: str, path: str) -> None:
    answer = raw(address, f"GET {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookies(ann)}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ") and b"import" not in answer and b"provenance" not in answer


def cookies(annotator: Annotator) -> str:
    return "; ".join(f"{name}={value}" for name, value in annotator.client.cookies.items())


def raw(address: str, data: bytes, wait: float = 10) -> bytes:
    """What comes back for some bytes, until the server says no more for as long as it keeps the connection."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=wait) as connection:
        connection.sendall(data)
        return connection.recv(100_000)


def test_a_request_may_bring_so_much_and_no_more(ann: Annotator) -> None:
    name = ann.queue()[0]["sample"]
    sample = ann.sample(name)
    assert ann.stroke(sample, cells(sample, 1), labels="A" * 900_000).status_code == 422
    assert ann.stroke(sample, cells(sample, 1), labels="A" * 1_000_001).status_code == 413

    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b"x" * 100_000

    answer = ann.client.post(f"/api/samples/{name}/strokes", content=endless())
    assert answer.status_code == 413 and "1,000,000 bytes" in answer.json()["error"]


def test_a_client_that_is_idle_slow_or_malformed_stops_no_other(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Connection, "header_seconds", 1.0)
    monkeypatch.setattr(security.Guard.__init__, "__defaults__", (1.0,))
    with serving(run) as address, annotating(address, "Ann") as ann:
        sample, cookie = ann.sample(ann.queue()[0]["sample"]), cookies(ann)
        head = f"POST /api/samples/{sample['sample']}/strokes HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\n"
        starts = [
            b"",
            b"GET /api/queue HTTP/1.1\r\nhost: loc",
            f"{head}content-length: 500\r\n\r\n{{".encode(),
            f"{head}transfer-encoding: chunked\r\n\r\n".encode(),
            b"POST /api/annotator HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000\r\n\r\nx",
        ]
        host, port = address.removeprefix("http://").split(":")
        slow = []
        for i in range(60):
            slow.append(socket.create_connection((host, int(port)), timeout=20))
            slow[-1].sendall(starts[i % len(starts)])
        for garbage in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"\0" * 100, b"x" * 200_000):
            answer = raw(address, garbage)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 400"), answer[:50]
        for i in range(20):
            sample = ann.sample(sample["sample"])
            assert ann.stroke(sample, cells(sample, i % 3)).status_code == 201
        ends = set()
        for connection in slow:
            with connection:
                try:
                    ends.add(connection.recv(10_000)[9:12])
                except ConnectionResetError:
                    ends.add(b"")
        assert ends == {b"", b"408", b"401"}, "and all of them were let go"
