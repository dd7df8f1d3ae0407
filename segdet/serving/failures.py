"""Errors as answers: one JSON form for `/v1`, the protocol's own for `/v2`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from segdet.errors import InputError, nearest
from segdet.serving import logs
from segdet.serving.context import Context
from segdet.serving.refusals import Refused, bad_request
from segdet.text import encoded

_CODES = {404: "not_found", 405: "method_not_allowed"}


def error_response(scope: Mapping[str, Any], refused: Refused) -> Response:
    """The answer to a refused request."""
    content = {"error": refused.message}
    if not scope["path"].startswith("/v2"):
        content |= {"code": refused.code, "request_id": scope.get("segdet.request_id", "")}
    headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = encoded(json.dumps(content, ensure_ascii=False))
    return Response(body, refused.status, headers, "application/json")


def add_handlers(app: FastAPI, context: Context) -> None:
    """Answer every kind of error in the forms above, and count it."""

    def answer(request: Request, refused: Refused) -> Response:
        if refused.status not in _CODES:
            context.metrics.rejected.labels(refused.code).inc()
        return error_response(request.scope, refused)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return answer(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = [str(part) for part in first["loc"] if part not in ("query", "body", "path")]
        said = re.sub("^(Input|String) should", "must", first["msg"])
        message = f"{'.'.join(where)[:80]}: {said}" if where else said
        return answer(request, Refused(422, "bad_option", message))

    @app.exception_handler(InputError)
    async def input_error(request: Request, error: InputError) -> Response:
        return answer(request, bad_request(str(error)))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        said = str(error.detail)
        path = request.url.path[:80]
        if error.status_code == 404:  # an address that no route has
            close = nearest(path, app.openapi()["paths"], 1)
            said = f"nothing is at {path}; /docs lists what there is{close}"
        elif error.status_code == 405:
            said = f"{path} takes {(error.headers or {}).get('Allow', 'other methods')}, not {request.method}; /docs says how"
        made = answer(request, Refused(error.status_code, _CODES.get(error.status_code, "http"), said))
        made.headers.update(error.headers or {})
        return made

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        logs.failed(request.scope.get("segdet.request_id", ""), error)
        return answer(request, Refused(500, "internal", "internal error; the log has more under this request_id"))
