"""Health, metrics, and the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from segdet.serving.context import Context
from segdet.serving.refusals import Refused

PAGE = Path(__file__).parent / "page"
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".jpg": "image/jpeg"}
_FILES = {file.name: _TYPES[file.suffix] for file in PAGE.iterdir() if file.suffix in _TYPES}


def routes(context: Context) -> APIRouter:
    """Everything beside the APIs."""
    router = APIRouter(tags=["Operation"])

    @router.get("/healthz", summary="Alive", responses={503: {"description": "The GPU has failed: start it again"}})
    def health() -> dict[str, str]:
        if lost := context.models.lost:
            raise Refused(503, "device_lost", f"the GPU has failed ({', '.join(lost)}); start the server again")
        return {"status": "ok"}

    @router.get("/readyz", summary="Ready: warm, and not going down", responses={503: {"description": "Not ready"}})
    def ready() -> dict[str, str]:
        if not context.ready:
            raise Refused(503, "not_ready", "going down" if context.draining else "the models are being loaded", 1)
        return {"status": "ready"}

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    def metrics() -> Response:
        return Response(context.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    def page(name: str, media: str) -> FileResponse:
        return FileResponse(
            PAGE / name, media_type=media, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        )

    @router.get("/", include_in_schema=False)
    def index() -> Any:
        return page("index.html", "text/html")

    @router.get("/docs", include_in_schema=False)
    def docs() -> Any:
        return page("docs.html", "text/html")

    @router.get("/favicon.ico", include_in_schema=False)
    def icon() -> Any:
        return page("icon.svg", "image/svg+xml")

    @router.get("/page/{name}", include_in_schema=False)
    def asset(name: str) -> Any:
        if name not in _FILES:
            raise Refused(404, "not_found", "no such file")
        return page(name, _FILES[name])

    return router
