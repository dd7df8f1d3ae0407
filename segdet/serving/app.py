"""The application: one FastAPI app for uvicorn, Ray Serve and tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from segdet.serving import ops, schemas, v1, v2
from segdet.serving.context import Context
from segdet.serving.failures import add_handlers
from segdet.serving.middleware import Outer
from segdet.serving.settings import ServeConfig
from segdet.version import __version__

_ABOUT = """\
Segmentation and detection models behind an API. `/v1` takes images and gives regions, boxes, masks and overlays;
`/v2` is the Open Inference Protocol for clients such as tritonclient.
"""


def create_app(settings: ServeConfig, say: Callable[[str], None] = lambda line: None) -> FastAPI:
    """The application. Its models are loaded when it starts, before the first request is answered.

    Args:
        say: called with what was loaded.
    """
    context = Context(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not context.models.ready:
            await asyncio.get_running_loop().run_in_executor(None, context.models.load, say)
        yield
        context.draining = True
        await asyncio.get_running_loop().run_in_executor(None, context.models.close, settings.timeout)
        context.small.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="segdet",
        version=__version__,
        description=_ABOUT,
        lifespan=lifespan,
        docs_url=None,  # Swagger's page would be fetched from elsewhere; ours is at /docs
        redoc_url=None,
        responses=schemas.COMMON,  # type: ignore[arg-type]
    )
    app.state.context = context
    for router in (v1.routes(context), v2.routes(context), ops.routes(context)):
        app.include_router(router)
    add_handlers(app, context)
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[
                "X-Request-ID",
                "X-Skipped",
                "Server-Timing",
                "Retry-After",
                "Inference-Header-Content-Length",
            ],
        )
    app.add_middleware(Outer, context=context)
    return app
