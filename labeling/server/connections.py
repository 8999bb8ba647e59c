"""Connections that cannot be held without asking for anything: idle, slow and malformed clients are let go."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""How long the head of a request may take to arrive."""
MOST = 200
"""Connections at once; one more takes the place of the one that has been idle for longest."""


class Connection(H11Protocol):
    """One connection of uvicorn's own protocol for HTTP/1.1, with an end to waiting for a request."""

    header_seconds = HEADER_SECONDS
    most = MOST

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, for a while."""
        super().connection_made(transport)
        self._waiting: asyncio.TimerHandle | None = None
        self._wait()
        others = [other for other in self.connections if isinstance(other, Connection) and other is not self]
        idle = [other for other in others if not other.busy]
        if len(others) >= self.most and idle:
            min(idle, key=lambda other: other.heard).transport.abort()

    def data_received(self, data: bytes) -> None:
        """A part of a request; one that is still not whole is waited for no longer than before."""
        super().data_received(data)
        self.heard = self.loop.time()
        if self.busy:
            self._wait_no_more()
        elif self._waiting is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._wait_no_more()
        super().connection_lost(exc)

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self.heard = self.loop.time()
        self._waiting = self.loop.call_later(self.header_seconds, self._give_up)

    def _wait_no_more(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._waiting = None
        if not self.busy and not self.transport.is_closing():
            self.transport.abort()
