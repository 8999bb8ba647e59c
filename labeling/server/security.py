"""What stands before the labelling server: who may ask, from which page, how much, and how long it may take."""

import asyncio
import hmac
import ipaddress
import socket
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY = 1_000_000
"""Bytes that a request may bring. A stroke on 64 by 64 tokens is 11 kB."""
DROPPED = 20 * BODY
BODY_SECONDS = 10.0
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
ANY = ("0.0.0.0", "::")


class Guard:
    """An ASGI application that lets through only whole requests of somebody who has the token, from its own page.

    Parameters
    ----------
    token : str
        Shown once in the address; a browser gets it as a cookie and keeps it for as long as the server runs.
    cookie : str
        The name of that cookie; cookies are shared between the ports of a host, so each server needs one of its own.
    host : str
        The address that the server listens on.
    body_seconds : float
        How long a request's body may take to arrive.

    Notes
    -----
    A page of another site that had its own name resolve to this machine (DNS rebinding) would send that name as Host;
    one that posts to this address would send its own Origin.
    """

    def __init__(self, app: ASGIApp, token: str, cookie: str, host: str, body_seconds: float = BODY_SECONDS) -> None:
        self.app, self.token, self.cookie, self.body_seconds = app, token, cookie, body_seconds
        self.any_address = host in ANY
        self.names = {*LOOPBACK, host.lower(), *([socket.gethostname().lower()] if self.any_address else [])}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        send = _with_headers(send)
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] not in ("GET", "HEAD"):
            body = await self._body(receive)
            if isinstance(body, Response):
                refusal = body
            else:
                receive = _whole(body, receive)
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """The answer to a request that goes no further; None for one that does."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not self._is_own(host):
            return _refused(403, "This is not the server's own name: open the address that `handscope label` printed.")
        asked = parse_qs(scope["query_string"].decode("latin-1")).get("token") if scope["path"] == "/" else None
        if asked is not None and scope["method"] == "GET":
            if not self._is_token(asked[0]):
                return _page(403, "This token is not the one of the running server.")
            answer = RedirectResponse("/", 303)
            # Not "strict": a link in another site's page, such as a web terminal, would lose it on the way to the page.
            # What writes must come from the page itself, by its Origin.
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="lax")
            return answer
        if not self._is_token(cookie_parser(headers.get("cookie", "")).get(self.cookie, "")):
            if scope["path"] == "/":
                return _page(401, "The server knows only those who have its token.")
            return _refused(401, "The token is missing or of another server: open the address that the server printed.")
        origin = headers.get("origin")
        if scope["method"] not in ("GET", "HEAD") and origin not in (None, f"http://{host}", f"https://{host}"):
            return _refused(403, f"A page of {origin[:100] if origin else origin} may not write here.")
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _is_own(self, host: str) -> bool:
        name, colon, port = host.lower().rpartition(":")
        name = name if colon and port.isdecimal() else host.lower()
        name = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        return name in self.names or (self.any_address and _is_address(name))

    async def _body(self, receive: Receive) -> bytes | Response:
        """The whole body, or the answer to one that is too long or too slow.

        One that is too long is read on for a while, and dropped: a client that is still writing would see a broken
        connection in place of the answer.
        """
        body, length = bytearray(), 0
        try:
            async with asyncio.timeout(self.body_seconds):
                while length <= DROPPED:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return _refused(400, "The request broke off.")
                    length += len(message.get("body", b""))
                    if length <= BODY:
                        body += message.get("body", b"")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            late = _refused(408, f"The request did not arrive within {self.body_seconds:g} seconds: send it again.")
            late.headers["connection"] = "close"  # the rest of it could be taken for the next request
            return late
        if length > BODY:
            return _refused(413, f"A request may bring {BODY:,} bytes, and this one has more.")
        return bytes(body)


def _whole(body: bytes, receive: Receive) -> Receive:
    """A body that was received already, then whatever follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending


def _refused(status: int, sentence: str) -> Response:
    return JSONResponse({"error": sentence}, status)


def _page(status: int, sentence: str) -> Response:
    return HTMLResponse(
        f"<!doctype html><meta charset=utf-8><title>handscope</title><p>{sentence} Open the address that "
        "<code>handscope label</code> printed, by pasting it into the address line.",
        status,
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


