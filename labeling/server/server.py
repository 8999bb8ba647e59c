"""The labelling server: one process on one port, for as long as somebody labels."""

import errno
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from ...errors import HandscopeError
from .api import make_app
from .connections import Connection
from .security import ANY, LOOPBACK, Guard
from .session import Session

KEEP_ALIVE = 60
"""Seconds that a connection is kept between two requests."""


@dataclass(frozen=True)
class Place:
    """Where a server can be reached, and with which token."""

    host: str
    port: int
    token: str

    @property
    def address(self) -> str:
        """What to open in a browser on this machine (or, on another one, where `host` is the machine's address)."""
        host = "127.0.0.1" if self.host in ANY else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/?token={self.token}"

    @property
    def tunnel(self) -> str:
        """The command that makes the same address work on another machine; its user and name are to be filled in."""
        target = "127.0.0.1" if self.host in ANY else self.host
        target = f"[{target}]" if ":" in target else target
        return f"ssh -N -L {self.port}:{target}:{self.port} USER@{socket.gethostname()}"

    @property
    def open_to_others(self) -> bool:
        """Whether other machines can reach it."""
        return self.host not in LOOPBACK


def serve(session: Session, host: str, port: int, ready: Callable[[Place], None]) -> None:
    """Serve the labelling page of a run until interrupted.

    Parameters
    ----------
    host : str
        The address to listen on; other machines reach any but 127.0.0.1, localhost and ::1.
    port : int
        0 takes a free one.
    ready : callable
        Told where the server is, once it can be reached.

    Raises
    ------
    HandscopeError
        The port is taken, or the address is not this machine's.
    KeyboardInterrupt
        It was interrupted; what was acknowledged is stored.
    """
    listener = listen(host, port)
    place = Place(host, listener.getsockname()[1], secrets.token_urlsafe(32))
    with listener, session.labels.kept_open():
        server = make_server(session, place, ready)
        server.run(sockets=[listener])


def make_server(session: Session, place: Place, ready: Callable[[Place], None]) -> uvicorn.Server:
    """A server that is still to be run, on a socket that listens at `place`."""
    cookie = f"handscope_{session.run_id}_{place.port}"
    app = make_app(session, cookie, f"handscope_annotator_{session.run_id}")
    guard = Guard(app, place.token, cookie, place.host)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(place)

    return Server(
        uvicorn.Config(
            guard,
            http=Connection,
            ws="none",
            lifespan="off",
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=3,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; HandscopeError where the port is taken or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio sends an answer's parts at once (TCP_NODELAY), not the second one 40 ms later.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise HandscopeError(
                f"Port {port} of {host} is taken, perhaps by another `handscope label`: choose another, such as --port "
                f"{port + 1}. Strokes that a browser still keeps for this address are sent once it is served again."
            ) from error
        raise HandscopeError(
            f"Could not listen on {host}, port {port} ({error}): give an address of this machine with --host and a "
            "port from 1024 to 65535 with --port."
        ) from error
    return listener
