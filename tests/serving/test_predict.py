"""`/v1`: what comes back for an image, in every form, and what is said about a wrong request."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools import mask as coco_mask

import segdet
from tests.conftest import ROOT
from tests.serving.conftest import Server, blobs, wall


def _array(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_serving_imports_no_torch() -> None:
    code = (
        "import sys\nfrom segdet.serving import app, client, server\n"
        "heavy = {'torch', 'torchvision', 'timm', 'accelerate', 'matplotlib', 'skimage', 'scipy', 'onnx', 'ray', 'httpx'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_form_and_a_raw_body_give_what_segdet_predict_gives(server: Server, models: dict[str, Path]) -> None:
    image = wall(1)
    expected = segdet.load(models["walls"]).predict(image)
    for request in ({"files": {"image": ("w.png", image)}}, {"content": image}):
        answer = server.client.post("/v1/predict", **request)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        (found,) = told["images"]
        assert told["model"] == {"name": "walls", "version": "1", "task": "segmentation", "classes": ["crack"]}
        assert (found["width"], found["height"]) == (128, 96)
        assert found["classes"]["crack"]["pixels"] == expected.areas["crack"] > 0
        assert found["regions"] == json.loads(json.dumps(expected.to_dict()))["regions"]
        decoded = coco_mask.decode({**found["rle"]["crack"], "counts": found["rle"]["crack"]["counts"].encode()})
        assert (decoded == expected.mask).all()
        assert {"queue_ms", "decode_ms", "predict_ms", "encode_ms"} == set(found["timing"])
        assert (
            answer.headers["x-request-id"] == told["request_id"] and "predict;dur=" in answer.headers["server-timing"]
        )


@pytest.mark.parametrize(
    ("accept", "format", "media"),
    [
        ("image/png", None, "image/png"),
        ("image/png;render=overlay", None, "image/png"),
        ("image/jpeg", None, "image/jpeg"),
        ("text/html, image/png;q=0.4, application/geo+json;q=0.9", None, "application/geo+json"),
        ("*/*", "mask", "image/png"),
        (None, "overlay", "image/png"),
        (None, "confidence", "image/png"),
        (None, "geojson", "application/geo+json"),
        (None, "coco", "application/json"),
        (None, "csv", "text/csv; charset=utf-8"),
        (None, "yolo", "text/plain; charset=utf-8"),
    ],
)
def test_the_accept_header_or_format_says_what_comes_back(
    server: Server, models: dict[str, Path], accept: str | None, format: str | None, media: str
) -> None:
    image = wall(3)
    expected = segdet.load(models["walls"]).predict(image)
    answer = server.client.post(
        "/v1/predict",
        params={"format": format} if format else {},
        headers={"accept": accept} if accept else {},
        files={"image": ("17.png", image)},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media
    shown = format or {"image/png": "mask", "image/png;render=overlay": "overlay"}.get(accept or "")
    if shown == "mask":
        assert (_array(answer.content) == expected.mask).all()
    elif shown == "overlay":
        assert (_array(answer.content) == expected.overlay()).all()
    elif shown == "confidence":
        assert np.abs(_array(answer.content) / 255 - expected.confidence).max() < 0.51 / 255
    elif "geo+json" in media:
        features = answer.json()["features"]
        assert len(features) == len(expected.regions) and features[0]["properties"]["image"] == "17.png"
    elif shown == "coco":
        assert answer.json() == json.loads(json.dumps([{**row, "file_name": "17.png"} for row in expected.to_coco(17)]))
    elif shown == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert sum(int(row["area"]) for row in rows) == expected.areas["crack"] and rows[0]["image"] == "17.png"
    elif shown == "yolo":
        assert answer.text == expected.to_yolo()


def test_options_come_in_the_address_or_the_form(server: Server, models: dict[str, Path]) -> None:
    image = wall(2)
    expected = segdet.load(models["walls"], threshold=0.9).predict(image).areas["crack"]
    in_address = server.client.post("/v1/predict", params={"threshold": 0.9}, files={"image": ("w.png", image)})
    in_form = server.client.post("/v1/predict", data={"threshold": "0.9"}, files={"image": ("w.png", image)})
    for answer in (in_address, in_form):
        found = answer.json()["images"][0]
        assert found["threshold"] == 0.9 and found["classes"]["crack"]["pixels"] == expected
    image = wall(2, 200, 300)
    tiled = server.client.post("/v1/predict", params={"tile": 128, "format": "mask"}, content=image)
    reference = segdet.load(models["walls"], tile=128).predict(image)
    assert (_array(tiled.content) == reference.mask).all()
    smaller = server.client.post("/v1/predict", params={"imgsz": 64, "format": "mask"}, content=image)
    seen = segdet.load(models["walls"], imgsz=64).predict(image)
    assert (_array(smaller.content) == seen.mask).all() and not (seen.mask == reference.mask).all()


def test_json_holds_what_is_included(server: Server, models: dict[str, Path]) -> None:
    image = wall(1)
    expected = segdet.load(models["walls"]).predict(image)
    bare = server.client.post("/v1/predict", params={"include": ""}, content=image).json()["images"][0]
    assert "rle" not in bare and "polygons" not in bare["regions"][0] and bare["regions"][0]["area"] > 0
    rich = server.client.post("/v1/predict", params={"include": "mask,confidence"}, content=image).json()["images"][0]
    assert (_array(base64.b64decode(rich["mask"])) == expected.mask).all()
    assert _array(base64.b64decode(rich["confidence"])).shape == (96, 128)


def test_several_images_are_answered_in_their_order_and_a_bad_one_does_not_spoil_the_rest(server: Server) -> None:
    files = [
        ("image", ("one.png", wall(1))),
        ("image", ("bad.png", b"not an image")),
        ("image", ("two.png", wall(3, 64, 80))),
    ]
    answer = server.client.post("/v1/predict", files=files)
    one, bad, two = answer.json()["images"]
    assert answer.status_code == 200
    assert one["name"] == "one.png" and (two["width"], two["height"]) == (80, 64)
    assert bad == {"name": "bad.png", "error": bad["error"], "status": 400} and "not an image" in bad["error"]
    table = server.client.post("/v1/predict", params={"format": "csv"}, files=files)
    assert {row["image"] for row in csv.DictReader(io.StringIO(table.text))} == {"one.png", "two.png"}
    assert table.headers["x-skipped"].startswith("bad.png: not an image")
    refused = server.client.post("/v1/predict", params={"format": "mask"}, files=files)
    assert refused.status_code == 400 and "one image" in refused.json()["error"]
    all_bad = server.client.post("/v1/predict", files=[files[1], files[1]])
    assert all_bad.status_code == 400


@pytest.mark.parametrize("format", ["csv", "geojson", "coco"])
def test_forms_without_a_place_for_errors_name_what_was_skipped(server: Server, format: str) -> None:
    good = ("image", ("good.png", wall(1)))
    damaged = ("image", ("größe; 50%.png", wall(1)[:-1000]))  # its header is sound
    answer = server.client.post("/v1/predict", params={"format": format}, files=[good, damaged])
    (skipped,) = answer.headers["x-skipped"].split("; ")
    assert answer.status_code == 200 and unquote(skipped).startswith("größe; 50%.png: "), skipped
    if format == "geojson":
        (told,) = answer.json()["skipped"]
        assert (told["name"], told["status"]) == ("größe; 50%.png", 400) and told["error"]
    many = [good] + [("image", ("裂" * 199 + str(n), b"x")) for n in range(15)]
    bounded = server.client.post("/v1/predict", params={"format": format}, files=many).headers["x-skipped"]
    assert len(bounded) < 2100 and bounded.isascii() and bounded.endswith(" more")
    whole = server.client.post("/v1/predict", params={"format": format}, files=[good])
    assert "x-skipped" not in whole.headers and b"skipped" not in whole.content


@pytest.mark.parametrize("photometric", ["rgb", "minisblack", "miniswhite"])
def test_a_planar_tiff_is_answered_alike_every_time(server: Server, photometric: str) -> None:
    """Memory that nobody wrote would show in some of the answers, and with it the images of others."""
    picture = _array(wall(1))
    stream = io.BytesIO()
    planes = picture.astype(np.uint16).transpose(2, 0, 1) * 257
    tifffile.imwrite(stream, planes, photometric=photometric, planarconfig="separate", compression="zlib")
    pictures = set()
    for number in range(30):
        server.client.post("/v1/predict", content=wall(number))
        answer = server.client.post("/v1/predict", params={"format": "picture"}, content=stream.getvalue())
        assert answer.status_code == 200, answer.text
        pictures.add(answer.content)
    (shown,) = pictures
    expected = 255 - picture if photometric == "miniswhite" else picture
    assert np.abs(_array(shown).astype(int) - expected).mean() < 6  # it comes back as a JPEG


@pytest.mark.parametrize(("brand", "kind"), [(b"heic", "HEIC"), (b"mif1", "HEIC"), (b"avif", "AVIF")])
def test_pictures_of_phones_are_refused_with_the_way_out(server: Server, brand: bytes, kind: str) -> None:
    content = bytes([0, 0, 0, 24]) + b"ftyp" + brand + bytes(500)
    answer = server.client.post("/v1/predict", files={"image": ("phone.heic", content)})
    assert answer.status_code == 400
    assert (
        answer.json()["error"] == f"phone.heic: a {kind} picture, which segdet does not read; convert it to JPEG or PNG"
    )


def test_coco_tells_images_of_one_name_apart(server: Server) -> None:
    def ids(*names: str) -> list[object]:
        files = [("image", (name, wall(1))) for name in names]
        rows = server.client.post("/v1/predict", params={"format": "coco"}, files=files).json()
        return list(dict.fromkeys(row["image_id"] for row in rows))

    assert ids("17.png", "wall.png") == [17, "wall"]
    assert ids("wall.png", "5.png", "wall.jpg") == ["wall", 5, "wall.jpg"]
    assert ids("7.png", "007.png", "7-1.png") == ["7", "007", "7-1"]
    assert ids("wall.png", "wall.png", "wall.png") == ["wall", "wall.png", "wall.png-2"]


def test_a_detection_model_gives_boxes(server: Server, models: dict[str, Path]) -> None:
    found = server.client.post("/v1/predict", params={"model": "blobs"}, content=blobs()).json()["images"][0]
    assert [(d["class"], d["box"]) for d in found["detections"]] == [
        ("red", [10, 20, 60, 70]),
        ("blue", [100, 30, 150, 90]),
    ]
    fewer = server.client.post("/v1/predict", params={"model": "blobs", "threshold": 0.8}, content=blobs()).json()
    assert [d["class"] for d in fewer["images"][0]["detections"]] == ["red"]
    chosen = server.client.post(
        "/v1/predict", params={"model": "blobs", "classes": "blue,green"}, content=blobs()
    ).json()
    assert [d["class"] for d in chosen["images"][0]["detections"]] == ["blue"]
    for format in ("overlay", "coco", "geojson", "csv", "yolo"):
        answer = server.client.post("/v1/predict", params={"model": "blobs", "format": format}, content=blobs())
        assert answer.status_code == 200, answer.text
    refused = server.client.post("/v1/predict", params={"model": "blobs", "format": "mask"}, content=blobs())
    assert refused.status_code == 400 and "finds boxes" in refused.json()["error"]


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"threshold": "1.5"}, 422, "less than or equal to 1"),
        ({"threshold": "nan"}, 422, "threshold"),
        ({"tresh": "0.5"}, 422, 'no option tresh; did you mean "threshold"?'),
        ({"zzz": "0.5"}, 422, "no option zzz; there are model, threshold, classes, tile, imgsz, format, include"),
        ({"tile": "3"}, 422, "tile: auto, off, or a side in pixels, 128 at least"),
        ({"imgsz": "8"}, 422, "greater than or equal to 32"),
        ({"imgsz": "9000"}, 413, "at imgsz 9000"),
        ({"imgsz": "320", "model": "blobs"}, 400, "a detector has its size inside"),
        ({"threshold": ["0.3", "0.6"]}, 422, "threshold: say it once"),
        ({"tile": "50"}, 400, "tile 50: say auto, off, or a side of at least 128"),
        ({"format": "bmp"}, 422, "format"),
        ({"model": "wals"}, 404, 'did you mean "walls"'),
        ({"classes": "krack"}, 400, 'did you mean "crack"'),
        ({"include": "masks"}, 400, "polygons,rle,mask,confidence"),
    ],
)
def test_a_wrong_option_is_named(server: Server, query: dict[str, str | list[str]], status: int, message: str) -> None:
    answer = server.client.post("/v1/predict", params=query, content=wall(1))
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert message in told["error"] and told["request_id"] == answer.headers["x-request-id"] and told["code"]


def test_a_wrong_field_of_a_form_is_named(server: Server) -> None:
    for data, message in (
        ({"tresh": "0.5"}, 'no option tresh; did you mean "threshold"?'),
        ({"threshold": ["0.3", "0.6"]}, "threshold: say it once"),
    ):
        answer = server.client.post("/v1/predict", data=data, files={"image": ("w.png", wall(1))})
        assert answer.status_code == 422 and message in answer.json()["error"], answer.text


def test_a_wrong_address_or_method_is_told_what_to_do(server: Server) -> None:
    missing = server.client.post("/v1/predct", content=wall(1))
    said = 'nothing is at /v1/predct; /docs lists what there is; did you mean "/v1/predict"?'
    assert missing.status_code == 404 and missing.json()["error"] == said and missing.json()["code"] == "not_found"
    wrong = server.client.get("/v1/predict")
    assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
    assert wrong.json()["error"] == "/v1/predict takes POST, not GET; /docs says how"


def test_what_is_no_image_is_refused(server: Server) -> None:
    post = server.client.post
    for answer, status, message in (
        (post("/v1/predict"), 400, "no image"),
        (post("/v1/predict", content=b"hello"), 400, "not an image"),
        (post("/v1/predict", json={"url": "http://example.com/a.jpg"}), 415, "send the image itself"),
        (post("/v1/predict", data={"image": "x"}, files={"note": (None, "y")}), 400, "no image in the form"),
        (post("/v1/predict", content=wall(1), headers={"accept": "video/mp4"}), 406, "Accept"),
        (post("/v1/predict", content=wall(1), headers={"accept": "image/png;render=foo"}), 406, "render=overlay"),
        (post("/v1/predict", content=wall(1), headers={"x-timeout": "-1"}), 400, "X-Timeout"),
        (post("/v1/predict", content=wall(1), headers={"x-timeout": "nan"}), 400, "X-Timeout"),
        (post("/v1/predict", files={"image": ("../../e\x1bvil.png", b"x")}), 400, "evil.png: not an image"),
        (post("/v1/predict", files=[("image", ("w.png", wall(1)))] * 17), 413, "16 at most"),
    ):
        assert answer.status_code == status and message in answer.json()["error"], answer.text
    assert server.good()


def test_the_models_are_described(server: Server, models: dict[str, Path]) -> None:
    first, second = server.client.get("/v1/models").json()["models"]
    assert (first["name"], first["task"], first["classes"]) == ("walls", "segmentation", ["crack"])
    assert (second["name"], second["task"], second["file"]) == ("blobs", "detection", "blobs.onnx")
    assert server.client.get("/v1/models/blobs").json() == second
    assert server.client.get("/v1/models/none").status_code == 404


def test_metrics_count_what_happened(server: Server) -> None:
    server.client.post("/v1/predict", content=wall(1))
    server.client.post("/v1/predict", content=b"x")
    text = server.client.get("/metrics").text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(values['segdet_requests_total{code="200",method="POST",route="/v1/predict"}']) >= 1
    assert float(values['segdet_rejected_total{reason="bad_image"}']) >= 1
    assert float(values['segdet_images_total{model="walls"}']) >= 1
    assert float(values['segdet_batch_size_count{model="walls"}']) >= 1
    assert values['segdet_pending_images{model="walls"}'] == "0.0"
    for name in ("segdet_request_seconds", "segdet_queue_seconds", "segdet_inference_seconds", "segdet_stage_seconds"):
        assert f"{name}_bucket" in text
    assert server.client.get("/healthz").json() == {"status": "ok"}
    assert server.client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/page/app.js", "/v1/models"])
def test_head_is_get_without_a_body(server: Server, path: str) -> None:
    got, head = server.client.get(path), server.client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == got.headers["content-length"]
    assert head.headers["content-type"] == got.headers["content-type"]
    assert server.client.head("/v1/predict").status_code == 405 and server.client.head("/none").status_code == 404
    if path == "/v1/models":
        lines = [line for line in server.log if '"method": "HEAD"' in line and path in line]
        assert json.loads(lines[-1])["bytes"] == 0


def test_requests_are_logged_with_their_id(server: Server) -> None:
    server.client.post("/v1/predict", content=wall(1), headers={"x-request-id": "bridge-17"})
    forged = server.client.get("/v1/models", headers={"x-request-id": 'a" "b'})
    assert forged.headers["x-request-id"] != 'a" "b'
    lines = [json.loads(line) for line in server.log if "bridge-17" in line]
    assert lines[0]["path"] == "/v1/predict" and lines[0]["status"] == 200 and lines[0]["ms"] > 0
