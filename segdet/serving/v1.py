"""`/v1`: images in; regions, boxes, masks, overlays, GeoJSON, COCO, CSV out."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from segdet.errors import nearest
from segdet.inference.predict import sizes
from segdet.serving import answers, schemas
from segdet.serving.bodies import Part, parse_form
from segdet.serving.context import Context
from segdet.serving.models import ServedModel
from segdet.serving.predicting import Answer, Options, check_options, inspect, predict
from segdet.serving.refusals import Refused, bad_option, bad_request, too_large
from segdet.serving.scheduler import Job

_MAX_NAME = 200
_TILE = r"(auto|off|[1-9][0-9]{1,4})"


class PredictOptions(BaseModel):
    """Options of a prediction, in the address or as fields of the form."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=64, description="Which model; without it, the first one served.")
    threshold: float | None = Field(
        None, ge=0, le=1, description="Probability from which a pixel or a box counts; without it, the model's own."
    )
    classes: str | None = Field(None, max_length=2000, description="Only these classes, separated by commas.")
    tile: str = Field(
        "auto",
        json_schema_extra={"pattern": f"^{_TILE}$"},
        description="Large images in tiles: auto, off, or a side in pixels (128 at least).",
    )
    imgsz: int | None = Field(
        None,
        ge=sizes.SMALLEST,
        le=sizes.LARGEST,
        description="Segmentation: longer side of the image as the network sees it; without it, the image's own.",
    )
    format: Literal[answers.FORMATS] | None = Field(None, description="Instead of the Accept header.")  # type: ignore[valid-type]
    include: str | None = Field(
        None,
        max_length=200,
        description=f"What the JSON holds beside the regions: {','.join(answers.INCLUDES)}; usually polygons,rle.",
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name in given:
            if name not in cls.model_fields:
                close = nearest(name[:80], cls.model_fields, 1) or f"; there are {', '.join(cls.model_fields)}"
                raise PydanticCustomError("no_option", "no option {said}", {"said": f"{name[:80]}{close}"})
        return given

    @field_validator("tile")
    @classmethod
    def _tile(cls, tile: str) -> str:
        if not re.fullmatch(_TILE, tile):
            raise PydanticCustomError("tile", "auto, off, or a side in pixels, 128 at least")
        return tile

    def wanted(self) -> Options:
        """The part that concerns the prediction."""
        names = tuple(dict.fromkeys(name.strip() for name in (self.classes or "").split(",") if name.strip()))
        return Options(self.threshold, names, self.tile, self.imgsz)


def routes(context: Context) -> APIRouter:
    """All of `/v1`."""
    router = APIRouter(tags=["Prediction"])

    @router.post(
        "/v1/predict",
        summary="Find objects in images",
        description=schemas.PREDICT,
        response_class=Response,
        openapi_extra=schemas.PREDICT_BODY,
        responses=schemas.PREDICT_RESPONSES,
    )
    async def predict_images(request: Request, options: Annotated[PredictOptions, Query()]) -> Response:
        start = time.perf_counter()
        _once(name for name, _ in request.query_params.multi_items())
        if not context.models.ready:
            context.models.get(None)
        body = await context.bodies.read(request)
        try:
            return await _answer(context, request, body, options, start)
        finally:
            context.bodies.release(len(body))

    @router.get("/v1/models", summary="The served models", response_model=schemas.ModelList)
    def list_models() -> Any:
        return {"models": [model.describe() for model in context.models]}

    @router.get("/v1/models/{name}", summary="One model", response_model=schemas.Model, responses=schemas.NOT_FOUND)
    def one_model(name: str) -> Any:
        return context.models.get(name).describe()

    @router.post(
        "/v1/models/{name}/reload",
        summary="Read a model's file again",
        description="Loads the file beside the model that serves, tests it on stored images and swaps the two. "
        "When anything is wrong with the file, the old model goes on serving (422).",
        response_model=schemas.Model,
        responses={**schemas.NOT_FOUND, **schemas.RELOAD},
    )
    def reload(name: str) -> Any:
        model = context.models.get(name)
        model.reload()
        return model.describe()

    return router


async def _answer(context: Context, request: Request, body: bytes, options: PredictOptions, start: float) -> Response:
    given, options = await context.aside(_images, request.headers.get("content-type", ""), body, options)
    if len(given) > context.settings.max_images:
        raise too_large(f"{len(given)} images; {context.settings.max_images} at most in one request")
    model = context.models.get(options.model)
    metadata = model.current.metadata
    wanted = options.wanted()
    check_options(metadata, wanted)
    kind = answers.choose(request.headers.get("accept"), options.format)
    answers.check_format(kind, metadata.task, len(given))
    include = answers.includes(options.include)
    units = await context.aside(_inspect_all, given, model, wanted, context.settings.max_pixels)
    deadline = context.deadline(_timeout(request.headers.get("x-timeout")))
    jobs = [
        Job(_work(context, model, part, wanted, kind, include), amount, deadline)
        for part, amount in zip(given, units, strict=True)
        if not isinstance(amount, Refused)
    ]
    if not jobs:
        raise next(iter(units))
    done = iter(await context.run(request, model, jobs))
    results = [_outcome(amount if isinstance(amount, Refused) else next(done)) for amount in units]
    failed = [result for result in results if isinstance(result, Refused)]
    if len(failed) == len(results):
        raise failed[0]
    outcomes = [
        r if isinstance(r, Answer) else Answer(p.filename or p.name, error=r.message, status=r.status)
        for p, r in zip(given, results, strict=True)
    ]
    seconds = time.perf_counter() - start
    about = {
        "request_id": request.scope["segdet.request_id"],
        "model": {
            "name": model.name,
            "version": str(model.current.version),
            "task": metadata.task,
            "classes": metadata.classes,
        },
        "timing": {"total_ms": round(seconds * 1000, 2)},
    }
    content, media = await context.aside(answers.assemble, kind, outcomes, about)
    stages: dict[str, float] = {}
    for answer in outcomes:
        for stage, value in answer.timing.items():
            stages[stage] = stages.get(stage, 0.0) + value
    timing = ", ".join(f"{stage};dur={value * 1000:.1f}" for stage, value in {**stages, "total": seconds}.items())
    headers = {"Server-Timing": timing, "Vary": "Accept"}
    if failed and kind != "json":  # JSON has a place for each image's error
        headers["X-Skipped"] = answers.skipped(outcomes)
    return Response(content, media_type=media, headers=headers)


def _work(
    context: Context, model: ServedModel, part: Part, wanted: Options, kind: str, include: tuple[str, ...]
) -> Any:
    """What a worker does with one image."""

    def work(job: Job) -> Answer:
        loaded = model.current  # a reload may have come while the image waited
        check_options(loaded.metadata, wanted)
        name = part.filename or part.name
        answer = predict(loaded, part.content, name, wanted, job)
        start = time.perf_counter()
        assert answer.result is not None
        answer.extra = answers.encoder(kind, name, include)(answer.result)
        answer.result = None  # the pixels are not needed any more
        answer.timing = {"queue": job.queued, **answer.timing, "encode": time.perf_counter() - start}
        for stage in ("decode", "predict", "encode"):
            context.metrics.stages.labels(stage).observe(answer.timing[stage])
        context.metrics.images.labels(model.name).inc()
        return answer

    return work


def _outcome(outcome: Any) -> Answer | Refused:
    """An image's outcome: its answer, or why it has none; an unexpected error is raised."""
    if isinstance(outcome, (Answer, Refused)):
        return outcome
    raise outcome


def _inspect_all(given: list[Part], model: ServedModel, wanted: Options, max_pixels: int) -> list[float | Refused]:
    """Each image's amount of work, or why it cannot be used."""
    found: list[float | Refused] = []
    for part in given:
        try:
            found.append(inspect(part.content, part.filename or part.name, model.current.metadata, wanted, max_pixels))
        except Refused as refusal:
            found.append(refusal)
    return found


def _images(content_type: str, body: bytes, options: PredictOptions) -> tuple[list[Part], PredictOptions]:
    """The images in a body, and the options with those of the form's fields.

    Raises:
        Refused: 400, 415. RequestValidationError: 422, a field's value.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json":
        raise Refused(
            415, "not_an_image", "send the image itself: a form (multipart/form-data) or the bytes as the body"
        )
    if kind != "multipart/form-data":
        if not body:
            raise bad_request("no image: send its bytes as the body, or a form with a file", "no_image")
        return [Part("image", None, body)], options
    parts = parse_form(content_type, body)
    files = [Part(part.name, _file_name(part.filename), part.content) for part in parts if part.filename is not None]
    fields = {part.name: part.content.decode("utf-8", "replace") for part in parts if part.filename is None}
    _once(part.name for part in parts if part.filename is None)
    if not files:
        raise bad_request("no image in the form: send it as a file, as in curl -F image=@photo.jpg", "no_image")
    if fields:
        try:
            options = PredictOptions.model_validate({**options.model_dump(exclude_unset=True), **fields})
        except ValidationError as error:
            raise RequestValidationError(error.errors(include_context=False)) from error
    return files, options


def _once(names: Iterable[str]) -> None:
    """Refuse an option that is given several times: whichever counted, the other would be lost.

    Raises:
        Refused: 422.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise bad_option(name[:80], f"{name[:80]}: say it once, not {count} times")


def _timeout(text: str | None) -> float | None:
    """Seconds after which the client has no use for the answer: the header X-Timeout."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 1e6:
        raise bad_request(f"X-Timeout {text[:20]!r}: seconds, more than 0", "bad_option")
    return seconds


def _file_name(text: str | None) -> str:
    """A client's file name, made fit to be shown and written: no folders, no control characters."""
    name = (text or "").replace("\\", "/").rsplit("/", 1)[-1]
    return "".join(letter for letter in name if letter.isprintable())[:_MAX_NAME] or "image"
