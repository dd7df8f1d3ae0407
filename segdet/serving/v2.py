"""`/v2`: the Open Inference Protocol (KServe, Triton), with the binary tensor extension and encoded images as BYTES."""

from __future__ import annotations

from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response

from segdet.contract import OUTPUTS
from segdet.data import images
from segdet.errors import InputError
from segdet.inference.predict import multiscale, tiling
from segdet.metadata import Metadata
from segdet.serving import schemas, tensors
from segdet.serving.context import Context
from segdet.serving.models import Loaded, work_units
from segdet.serving.predicting import Options, check_pixels, predict_pixels
from segdet.serving.refusals import Refused, bad_request, refusal
from segdet.serving.scheduler import Job
from segdet.version import __version__

_TYPES = {"uint8": "UINT8", "float32": "FP32", "int64": "INT64"}  # the protocol's words
_MODEL = "/v2/models/{name}"
_VERSION = "/v2/models/{name}/versions/{version}"


def routes(context: Context) -> APIRouter:
    """All of `/v2`."""
    router = APIRouter(tags=["Open Inference Protocol"], responses=schemas.PROTOCOL)

    @router.get("/v2", summary="Server metadata")
    def server() -> dict[str, Any]:
        return {"name": "segdet", "version": __version__, "extensions": ["binary_tensor_data"]}

    @router.get("/v2/health/live", summary="Alive")
    def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/v2/health/ready", summary="Ready for inference")
    def ready() -> dict[str, bool]:
        if not context.ready:
            raise Refused(503, "not_ready", "not ready", 1)
        return {"live": True, "ready": True}

    @router.get(f"{_MODEL}/ready", summary="Model ready")
    @router.get(f"{_VERSION}/ready", summary="Model version ready")
    def model_ready(name: str, version: str | None = None) -> dict[str, Any]:
        context.models.get(name, version)
        if not context.ready:
            raise Refused(503, "not_ready", "not ready", 1)
        return {"name": name, "ready": True}

    @router.get(_MODEL, summary="Model metadata")
    @router.get(_VERSION, summary="Model version metadata")
    def model_metadata(name: str, version: str | None = None) -> dict[str, Any]:
        model = context.models.get(name, version)
        return describe(name, str(model.current.version), model.current.metadata)

    @router.post(f"{_MODEL}/infer", summary="Infer", openapi_extra=_BODY, response_class=Response)
    @router.post(f"{_VERSION}/infer", summary="Infer with a version", openapi_extra=_BODY, response_class=Response)
    async def infer(request: Request, name: str, version: str | None = None) -> Response:
        model = context.models.get(name, version)
        metadata = model.current.metadata
        body = await context.bodies.read(request)
        try:
            asked: tensors.InferRequest = await context.aside(
                tensors.parse,
                body,
                request.headers.get("inference-header-content-length"),
                [output.name for output in OUTPUTS[metadata.task]],
                context.settings.max_pixels,
                context.settings.max_images,
            )
            if asked.threshold is not None and not metadata.is_binary:
                raise bad_request("this model has no input called threshold")
            units = await context.aside(_units, metadata, asked.images, context.settings.max_pixels)

            def work(job: Job) -> tuple[bytes, dict[str, str], str]:
                loaded = model.current
                answers = infer_tensors(loaded, asked, job)
                context.metrics.images.labels(model.name).inc(len(asked.images))
                return tensors.render(name, str(loaded.version), asked, answers)

            (answer,) = await context.run(request, model, [Job(work, units, context.deadline(_timeout(asked)))])
        finally:
            context.bodies.release(len(body))
        if isinstance(answer, BaseException):
            raise answer
        content, headers, media = answer
        return Response(content, headers=headers, media_type=media)

    return router


def describe(name: str, version: str, metadata: Metadata) -> dict[str, Any]:
    """The model as the protocol describes it."""
    inputs = [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}]
    if metadata.is_binary:
        inputs.append({"name": "threshold", "datatype": "FP32", "shape": [1], "parameters": {"optional": True}})  # type: ignore[dict-item]
    outputs = [
        {"name": output.name, "datatype": _TYPES[output.dtype], "shape": list(output.shape)}
        for output in OUTPUTS[metadata.task]
    ]
    parameters = {"task": metadata.task, "classes": ",".join(metadata.classes)}
    return {
        "name": name,
        "versions": [version],
        "platform": "onnx_onnxv1",
        "inputs": inputs,
        "outputs": outputs,
        "parameters": parameters,
    }


def infer_tensors(loaded: Loaded, asked: tensors.InferRequest, job: Job) -> dict[str, np.ndarray]:
    """Run the model: whole batches as they come; larger images in tiles and with coarser looks, as `segdet predict` does."""
    metadata = loaded.metadata
    batch = asked.images if isinstance(asked.images, np.ndarray) else _decoded(asked.images)
    detects = metadata.task == "detection"
    again = metadata.is_binary and multiscale.sides(batch.shape[1:3], metadata.down_to)
    if not detects and (again or tiling.is_large(batch.shape[1:3])):
        found: list[Any] = [predict_pixels(loaded, image, Options(asked.threshold), job) for image in batch]
        return {"mask": np.stack([f.mask for f in found]), "confidence": np.stack([f.confidence for f in found])}
    threshold = None
    if metadata.is_binary:
        threshold = metadata.decision_threshold if asked.threshold is None else asked.threshold
    return dict(
        zip((output.name for output in OUTPUTS[metadata.task]), loaded.runner.run(batch, threshold), strict=True)
    )


def _decoded(encoded: list[bytes]) -> np.ndarray:
    """uint8 `[N, H, W, 3]` of encoded images."""
    try:
        pictures = [images.read_image(data, f"image {number}") for number, data in enumerate(encoded)]
    except InputError as error:
        raise refusal(error) from error
    if len({picture.shape for picture in pictures}) > 1:
        raise bad_request("images of different sizes make no tensor; send them one by one")
    return np.stack(pictures)


def _units(metadata: Metadata, given: np.ndarray | list[bytes], max_pixels: int) -> float:
    """How much work the images are; encoded ones are judged by their headers."""
    if isinstance(given, np.ndarray):
        return len(given) * work_units(metadata, *given.shape[1:3])
    total = 0.0
    for number, data in enumerate(given):
        try:
            height, width = images.header(data, f"image {number}").size
        except InputError as error:
            raise refusal(error) from error
        check_pixels(height * width, max_pixels, f"image {number}")
        total += work_units(metadata, height, width)
    return total


def _timeout(asked: tensors.InferRequest) -> float | None:
    """Triton's request parameter `timeout`, in microseconds."""
    value = asked.parameters.get("timeout", 0)
    if type(value) is not int or value < 0:
        raise bad_request("parameters: timeout: microseconds, a whole number; 0 = the server's own")
    return value / 1e6 or None


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {
                        "id": {"type": "string"},
                        "parameters": {"type": "object"},
                        "inputs": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["name", "shape", "datatype"],
                                "properties": {
                                    "name": {"type": "string"},
                                    "shape": {"type": "array", "items": {"type": "integer"}},
                                    "datatype": {"type": "string"},
                                    "parameters": {"type": "object"},
                                    "data": {"type": "array", "items": {}},
                                },
                            },
                        },
                        "outputs": {"type": "array", "items": {"type": "object", "required": ["name"]}},
                    },
                },
                "example": {
                    "inputs": [{"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [128] * 12}],
                    "outputs": [{"name": "mask"}],
                },
            },
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    "responses": {
        "200": {
            "description": "Tensors, as JSON or (when asked for) binary behind a JSON header",
            "content": {
                "application/json": {"schema": {"type": "object"}},
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        }
    },
}
