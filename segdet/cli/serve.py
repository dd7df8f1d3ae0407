"""`segdet serve`"""

from __future__ import annotations

import os

import typer


def serve(
    model: list[str] = typer.Option(
        [],
        help="NAME=FILE or FILE, several times: exported models. The first answers when none is named.  "
        "\\[default: newest in exports/, then runs/, then segdet's own]",
    ),
    host: str = typer.Option("127.0.0.1", help="Address to listen on; 0.0.0.0 lets other machines in."),
    port: int = typer.Option(8000, help="Port; 0 takes a free one."),
    api_key: str | None = typer.Option(None, help="Key that requests must carry.  \\[default: $SEGDET_API_KEY]"),
    device: str = typer.Option("auto", help="auto, cpu, cuda, cuda:N, tensorrt or openvino."),
    workers: int | None = typer.Option(
        None, help="Images worked on at a time, per model.  \\[default: for the machine]"
    ),
    threads: int | None = typer.Option(
        None, help="Threads of one inference.  \\[default: 1; all cores for a lone image]"
    ),
    batch: int | None = typer.Option(None, help="Images in one inference.  \\[default: 1 on a CPU, 8 on a GPU]"),
    batch_wait: float = typer.Option(0.005, help="Seconds a batch waits for more images."),
    queue: int = typer.Option(64, help="Images that may wait, per model; beyond it 503 at once."),
    max_wait: float = typer.Option(10.0, help="Seconds an image may be expected to wait; beyond it 503 at once."),
    timeout: float = typer.Option(30.0, help="Seconds from request to answer; beyond it 504."),
    max_body: int = typer.Option(32, help="Megabytes of one request."),
    max_pixels: int = typer.Option(100, help="Megapixels of one image."),
    max_images: int = typer.Option(16, help="Images of one request."),
    body_timeout: float = typer.Option(30.0, help="Seconds for a request's body to arrive; beyond it 408."),
    cors: list[str] = typer.Option([], help="Origin whose pages may call the API, several times; * for all."),
    drain_delay: float = typer.Option(1.0, help="Seconds to go on listening (not ready) after SIGTERM."),
    log: str = typer.Option("auto", help="json, text, off; auto: text on a terminal, else JSON lines."),
) -> None:
    """Serve models over HTTP, with a page to try them: segdet serve --model crack=exports/unet-crack.onnx"""
    from segdet.console import say
    from segdet.errors import InputError
    from segdet.serving import logs
    from segdet.serving.server import serve as run
    from segdet.serving.settings import Settings, named_models

    if log not in ("auto", "json", "text", "off"):
        raise InputError(f"--log {log}: say auto, json, text or off")
    logs.kind = log
    key = api_key or os.environ.get("SEGDET_API_KEY") or None
    if host not in ("127.0.0.1", "localhost", "::1") and key is None:
        say(f"segdet: {host} lets other machines in, and no --api-key is set: whoever reaches this port may use it")
    settings = Settings(
        models=named_models(model), device=device, api_key=key, workers=workers, threads=threads, batch=batch,
        batch_wait=batch_wait, queue=queue, max_wait=max_wait, timeout=timeout, max_body=max_body << 20,
        max_pixels=max_pixels * 1_000_000, max_images=max_images, body_timeout=body_timeout, cors=tuple(cors),
    )  # fmt: skip
    run(settings, host, port, drain_delay)
