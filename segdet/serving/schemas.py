"""What the OpenAPI page says about requests and answers."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Error(BaseModel):
    """Why a request was not answered with a result."""

    error: str = Field(examples=["photo.jpg: not an image segdet reads (JPEG PNG WEBP BMP TIFF GIF)"])
    code: str = Field(examples=["bad_image"])
    request_id: str


class ProtocolError(BaseModel):
    """The same in the Open Inference Protocol's form."""

    error: str


class Model(BaseModel):
    """A served model."""

    name: str
    version: str
    task: str
    arch: str
    backbone: str
    classes: list[str]
    colours: list[str] = Field(description="Of the classes in overlays and masks")
    threshold: float | None
    imgsz: int
    file: str
    sha256: str
    loaded_at: str
    device: str
    workers: int
    threads: int
    batch: int
    data: dict[str, Any]
    metrics: dict[str, Any]


class ModelList(BaseModel):
    """All of them, the default one first."""

    models: list[Model]


class ClassArea(BaseModel):
    """How much of an image is of a class."""

    pixels: int
    share: float = Field(ge=0, le=1)


class Region(BaseModel):
    """A connected part of one class (segmentation). Polygons in pixels, outer ones first, then holes."""

    model_config = ConfigDict(populate_by_name=True)

    class_: str = Field(alias="class")
    box: list[int] = Field(description="x1, y1, x2, y2 in pixels", min_length=4, max_length=4)
    area: int
    confidence: float
    polygons: list[list[list[float]]] | None = None


class Detection(BaseModel):
    """A box (detection)."""

    class_: str = Field(alias="class")
    label: int
    score: float
    box: list[float] = Field(description="x1, y1, x2, y2 in pixels", min_length=4, max_length=4)


class Image(BaseModel):
    """One image's result; `error` and `status` instead, when it could not be used and others could."""

    name: str
    width: int | None = None
    height: int | None = None
    threshold: float | None = None
    classes: dict[str, ClassArea | int] | None = None
    regions: list[Region] | None = None
    detections: list[Detection] | None = None
    rle: dict[str, dict[str, Any]] | None = Field(None, description="COCO run lengths of each class")
    mask: str | None = Field(None, description="PNG, base64: class numbers")
    confidence: str | None = Field(None, description="PNG, base64: 0..255")
    timing: dict[str, float] | None = None
    error: str | None = None
    status: int | None = None


class AnsweringModel(BaseModel):
    """Which model answered."""

    name: str
    version: str
    task: str
    classes: list[str]


class Prediction(BaseModel):
    """The answer of /v1/predict."""

    request_id: str
    model: AnsweringModel
    timing: dict[str, float]
    images: list[Image]


class CocoRow(BaseModel):
    """One of COCO's results (format=coco); categories count from 1."""

    image_id: int | str
    file_name: str
    category_id: int
    bbox: list[float] = Field(description="x, y, width, height in pixels", min_length=4, max_length=4)
    score: float
    area: int | None = None
    segmentation: dict[str, Any] | None = None


PREDICT = """\
Send an image as the body, or one or several as files of a form. The Accept header (or `format`) says what comes back.

    curl -F image=@photo.jpg http://127.0.0.1:8000/v1/predict
    curl --data-binary @photo.jpg -H 'Accept: image/png' http://127.0.0.1:8000/v1/predict -o mask.png
    curl -F image=@photo.jpg 'http://127.0.0.1:8000/v1/predict?format=overlay' -o overlay.png
    curl -F image=@photo.jpg -F threshold=0.4 -F format=geojson http://127.0.0.1:8000/v1/predict
    curl -F a=@one.jpg -F b=@two.jpg http://127.0.0.1:8000/v1/predict

The header `X-Timeout` says after how many seconds the answer is of no use (504).
"""

_FILE = {"type": "string", "format": "binary"}
PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {
                        "image": {
                            "type": "array",
                            "minItems": 1,
                            "items": _FILE,
                            "description": "One or several images.",
                        },
                        "threshold": {"type": "number", "minimum": 0, "maximum": 1},
                    },
                    "additionalProperties": False,
                }
            },
            "image/*": {"schema": _FILE},
            "application/octet-stream": {"schema": _FILE},
        },
    }
}


def _errors(model: type[BaseModel] = Error, **described: str) -> dict[int | str, dict[str, Any]]:
    return {int(code[1:]): {"model": model, "description": text} for code, text in described.items()}


COMMON = _errors(
    _401="The API key is missing or wrong",
    _403="Called by a page of another site",
    _503="Overloaded or going down; Retry-After says when to come back",
)
PROTOCOL = _errors(
    ProtocolError,
    _400="A request that cannot be used",
    _401="The API key is missing or wrong",
    _403="Called by a page of another site",
    _404="No such model or version",
    _408="The body came too slowly",
    _413="Too many bytes, pixels or images",
    _415="A compressed body",
    _503="Not ready, overloaded or going down",
    _504="No answer within the time",
    _507="Not enough memory for the image",
)
NOT_FOUND = _errors(_404="No such model")
RELOAD = _errors(_409="A reload is under way", _422="The new file cannot be used; the old model goes on serving")
PREDICT_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Prediction | list[CocoRow],
        "description": "The result, in the form that was asked for",
        "content": {
            "image/png": {"schema": _FILE},
            "image/jpeg": {"schema": _FILE},
            "application/geo+json": {"schema": {"type": "object"}},
            "text/csv": {"schema": {"type": "string"}},
            "text/plain": {"schema": {"type": "string"}},
        },
        "headers": {
            "X-Skipped": {
                "schema": {"type": "string"},
                "description": "GeoJSON, COCO, CSV: the images without a result, as `name: reason; ...`, percent-encoded",
            }
        },
    },
    **_errors(
        _400="An image or option that cannot be used",
        _404="No such model",
        _406="Nothing that the Accept header allows",
        _408="The body came too slowly",
        _413="Too many bytes, pixels or images",
        _415="A body that is no image",
        _422="An option's value",
        _504="No answer within the time",
        _507="Not enough memory for the image",
    ),
}
