"""The HTTP interface of the labelling page: a `Session` behind FastAPI; its document is at ``/openapi.json``."""

from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import anyio
import numpy as np
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.security import APIKeyCookie
from pydantic import TypeAdapter, ValidationError
from starlette.exceptions import HTTPException

from ...errors import HandscopeError, Unusable
from ..database.labels import Conflict
from . import messages as m
from .session import Missing, Session

PAGE = Path(__file__).parents[1] / "page"
YEAR = 365 * 24 * 3600
FOREVER = f"private, max-age={YEAR}, immutable"
MEDIA = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
_NAME: TypeAdapter[str] = TypeAdapter(m.Name)


def make_app(session: Session, cookie: str, annotator: str = "handscope_annotator") -> FastAPI:
    """The application, without the guard that stands before it.

    Parameters
    ----------
    cookie : str
        The name of the guard's cookie, for the document.
    annotator : str
        The name of the cookie that says who paints. All ports of a host share cookies, so each run needs its own.
    """
    token = Depends(APIKeyCookie(name=cookie, scheme_name="token", auto_error=False))
    app = FastAPI(title="handscope label", version="1", docs_url=None, redoc_url=None, dependencies=[token])
    app.state.annotator = annotator
    _explain_refusals(app)
    _serve_page(app)
    _serve_session(app, session)
    _serve_samples(app, session)
    _serve_writes(app, session)
    return app


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What an operation may answer instead, for the document."""
    return {status: {"model": m.ConflictSaid if status == 409 else m.Error} for status in (401, 403, 503, *statuses)}


_WRITE = _refusals(400, 404, 408, 409, 413, 422) | {200: {"description": "Written before, with this uid"}}


def _serve_page(app: FastAPI) -> None:
    @app.get(
        "/",
        response_class=HTMLResponse,
        responses={
            303: {"description": "The token is a cookie now"},
            401: {"description": "No token", "content": {"text/html": {}}},
            403: {"description": "The wrong token, or the wrong name of the server", "content": {"text/html": {}}},
        },
    )
    def index(token: str | None = None) -> Response:
        return _page_file("index.html")

    @app.get("/page/{file}", response_class=FileResponse, responses=_refusals(404))
    def page(file: str) -> Response:
        return _page_file(file)


def _serve_session(app: FastAPI, session: Session) -> None:
    @app.get("/api/session", responses=_refusals())
    def describe(request: Request) -> m.SessionSaid:
        return m.SessionSaid(**session.describe(_named(request)))

    @app.post("/api/annotator", responses=_refusals(400, 408, 413, 422))
    def annotator(who: m.Who, response: Response) -> m.Who:
        response.set_cookie(app.state.annotator, quote(who.name), max_age=YEAR, httponly=True, samesite="strict")
        return who

    @app.get("/api/queue", responses=_refusals(422))
    def queue(request: Request, mode: m.Mode = "paint") -> m.Queue:
        who = _annotator(request)
        return m.Queue(annotator=who, mode=mode, items=[m.Queued(**item) for item in session.queue(who, mode)])

    @app.get("/api/progress", responses=_refusals())
    def progress(request: Request) -> m.ProgressSaid:
        return m.ProgressSaid(**session.progress(_named(request)))


def _serve_samples(app: FastAPI, session: Session) -> None:
    @app.get("/api/gallery", responses=_refusals(422))
    def gallery(request: Request, mode: m.Painting = "paint") -> m.Gallery:
        who = _annotator(request)
        return m.Gallery(annotator=who, items=[m.Seen(**item) for item in session.gallery(who, mode)])

    @app.get("/api/samples/{sample}", responses=_refusals(404, 422))
    def sample(request: Request, sample: str, mode: m.Mode = "paint") -> m.Sample:
        return m.Sample(**session.sample(sample, _annotator(request), mode))

    @app.get(
        "/api/samples/{sample}/image",
        response_class=FileResponse,
        responses={**_refusals(404, 422), 200: {"content": {"image/png": {}}}},
    )
    def image(sample: str, sha: str | None = None) -> Response:
        path = session.picture(sample, sha)
        # Read at once, and not in parts as it is sent: the file may be replaced meanwhile.
        cached = FOREVER if sha else "private, no-cache"
        return Response(path.read_bytes(), media_type="image/png", headers={"cache-control": cached})

    @app.get(
        "/api/samples/{sample}/thumbnail",
        response_class=Response,
        responses={**_refusals(404, 422), 200: {"content": {"image/webp": {}}}},
    )
    def thumbnail(sample: str, sha: str | None = None) -> Response:
        cached = FOREVER if sha else "private, no-cache"
        return Response(session.thumbnail(sample), media_type="image/webp", headers={"cache-control": cached})

    @app.get("/api/samples/{sample}/suggestions", responses=_refusals(404, 422))
    async def suggestions(sample: str) -> m.SuggestionsSaid:
        found = await anyio.to_thread.run_sync(session.suggest, sample, limiter=suggesting)
        items = [
            m.Suggested(
                source=one.source,
                labels=one.labels.tobytes(),
                instances=one.instances.tobytes(),
                map=None if one.map is None else np.ascontiguousarray(one.map, "<f4").tobytes(),
                score=one.score,
            )
            for one in found.found
        ]
        return m.SuggestionsSaid(items=items, absent=found.absent)

    suggesting = anyio.CapacityLimiter(1)  # so that painters wait for no network's forward passes

    @app.get("/api/samples/{sample}/region", responses=_refusals(404, 422))
    def region(sample: str, row: int, column: int) -> m.Region:
        return m.Region(tokens=session.grown(sample, row, column).astype(np.uint8).tobytes())

    @app.get("/api/samples/{sample}/history", responses=_refusals(404, 422))
    def history(request: Request, sample: str, mode: m.Painting = "paint") -> m.History:
        who = _annotator(request)
        return m.History(annotator=who, items=[m.Past(**past) for past in session.history(sample, who, mode)])

    @app.get("/api/samples/{sample}/history/{revision}", responses=_refusals(404, 422))
    def earlier(request: Request, sample: str, revision: m.Revision, mode: m.Painting = "paint") -> m.Earlier:
        who = _annotator(request)
        return m.Earlier(annotator=who, revision=revision, **session.earlier(sample, who, mode, revision))


def _serve_writes(app: FastAPI, session: Session) -> None:
    @app.post("/api/samples/{sample}/strokes", status_code=201, response_model=m.Written, responses=_WRITE)
    def strokes(request: Request, response: Response, sample: str, stroke: m.Stroke, mode: m.Painting = "paint") -> Any:
        who = _author(request, stroke)
        try:
            revision, new = session.write(sample, mode, stroke)
        except Conflict as conflict:
            return _conflict(conflict, session.sample(sample, who, mode))
        response.status_code = 201 if new else 200
        return m.Written(revision=revision)

    @app.post(
        "/api/samples/{sample}/rating",
        status_code=201,
        response_model=dict[str, str],
        responses=_refusals(400, 404, 408, 413, 422),
    )
    def rating(request: Request, sample: str, rating: m.Rating) -> Any:
        _author(request, rating)
        session.rate(sample, rating)
        return {}


def _explain_refusals(app: FastAPI) -> None:
    """Every refusal is one sentence."""

    @app.exception_handler(Missing)
    def missing(request: Request, error: Missing) -> Response:
        return JSONResponse({"error": str(error)}, 404)

    @app.exception_handler(Unusable)
    @app.exception_handler(OSError)
    def unusable(request: Request, error: Exception) -> Response:
        # Of the server, and not of what was asked: a page asks again, and keeps its strokes until then.
        return JSONResponse({"error": str(error)}, 503)

    @app.exception_handler(HandscopeError)
    def refused(request: Request, error: HandscopeError) -> Response:
        return JSONResponse({"error": str(error)}, 422)

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": f"{error.detail}."}, error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        said = first.get("ctx", {}).get("error", first["msg"])
        sentence = f"{where}: {said}."[:300].encode("utf-8", "replace").decode()
        return JSONResponse({"error": sentence}, 400 if first["type"] == "json_invalid" else 422)


def _conflict(conflict: Conflict, current: dict[str, Any]) -> Response:
    said = m.ConflictSaid(error=str(conflict), current=m.Sample(**current))
    return Response(said.model_dump_json(), 409, media_type="application/json")


def _named(request: Request) -> str | None:
    """Who the browser says is painting."""
    try:
        return _NAME.validate_python(unquote(request.cookies.get(request.app.state.annotator, "")))
    except ValidationError:
        return None


def _annotator(request: Request) -> str:
    name = _named(request)
    if name is None:
        raise HTTPException(403, "Nobody is painting yet: choose a name first")
    return name


def _author(request: Request, write: m.Write) -> str:
    name = _annotator(request)
    if name != write.annotator:
        raise HTTPException(
            403, f"This was made by {write.annotator}, and now {name} is painting: choose the name it was made under"
        )
    return name


def _page_file(name: str) -> Response:
    """A file of the page; only names that are in its folder are looked for."""
    for path in PAGE.iterdir():
        if path.name == name and path.suffix in MEDIA:
            return FileResponse(path, media_type=MEDIA[path.suffix], headers={"cache-control": "no-cache"})
    raise HTTPException(404, "There is no such file of the page")
