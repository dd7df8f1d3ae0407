"""`/v2` with the unmodified client of NVIDIA's Triton, and by hand where that client cannot go wrong."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from PIL import Image
from tritonclient.utils import InferenceServerException

import segdet
from segdet.inference.predict.results import SegmentationResult
from tests.conftest import Cli
from tests.detectors import blob_picture
from tests.drawn import crack_picture
from tests.segmenters import thin_model
from tests.serving.conftest import Server, StartServer, encoded


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    made = triton.InferenceServerClient(server.address.removeprefix("http://"))
    yield made
    made.close()


def _input(name: str, array: np.ndarray, datatype: str, binary: bool = True) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def test_health_and_metadata(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("walls")
    assert client.is_model_ready("walls", "1") and not client.is_model_ready("none")
    assert not client.is_model_ready("walls", "9")
    about = client.get_server_metadata()
    assert about["name"] == "segdet" and "binary_tensor_data" in about["extensions"]
    walls = client.get_model_metadata("walls")
    assert walls["versions"] == ["1"] and walls["platform"] == "onnx_onnxv1"
    assert walls["inputs"][0] == {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    assert [o["name"] for o in walls["outputs"]] == ["mask", "confidence"]
    blobs = client.get_model_metadata("blobs", client.get_model_metadata("blobs")["versions"][0])
    assert [(o["name"], o["datatype"]) for o in blobs["outputs"]] == [
        ("boxes", "FP32"),
        ("scores", "FP32"),
        ("labels", "INT64"),
    ]
    with pytest.raises(InferenceServerException, match="no model 'none'"):
        client.get_model_metadata("none")


def test_json_and_binary_give_the_mask_of_segdet_predict(
    client: Any, models: dict[str, Path], cli: Cli, tmp_path: Path
) -> None:
    image, _ = crack_picture(5, 90, 111)
    (tmp_path / "wall.png").write_bytes(encoded(image))
    done = cli("predict", tmp_path / "wall.png", "--model", models["walls"], "--out", tmp_path, "--save", "mask")
    assert done.returncode == 0, done.stderr
    from PIL import Image

    expected = np.asarray(Image.open(tmp_path / "wall_mask.png"))
    assert expected.any()
    for binary in (True, False):
        wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("confidence", "mask")]
        answer = client.infer("walls", [_input("image", image[None], "UINT8", binary)], outputs=wanted, request_id="7")
        assert (answer.as_numpy("mask") == expected[None]).all() and answer.as_numpy("mask").dtype == np.uint8
        assert answer.as_numpy("confidence").dtype == np.float32
        assert answer.get_response()["id"] == "7" and answer.get_response()["model_version"] == "1"
        assert [o["name"] for o in answer.get_response()["outputs"]] == ["confidence", "mask"]
    plain = client.infer("walls", [_input("image", image[None], "UINT8")])  # tritonclient then asks for all, in binary
    assert (plain.as_numpy("mask") == expected[None]).all()


def test_batches_thresholds_and_encoded_images(client: Any, models: dict[str, Path]) -> None:
    images = np.stack([crack_picture(seed, 64, 64)[0] for seed in (1, 2, 3)])
    model = segdet.load(models["walls"], threshold=0.8)
    expected = np.stack([model.predict(image).mask for image in images])
    threshold = _input("threshold", np.array([0.8], np.float32), "FP32")
    answer = client.infer("walls", [_input("image", images, "UINT8"), threshold])
    assert (answer.as_numpy("mask") == expected).all()
    files = np.array([encoded(image) for image in images], dtype=np.object_)
    again = client.infer("walls", [_input("image", files, "BYTES"), threshold])
    assert (again.as_numpy("mask") == expected).all()


def test_detection(client: Any) -> None:
    image = blob_picture({"red": (10, 20, 60, 70)})
    answer = client.infer("blobs", [_input("image", image[None], "UINT8")])
    assert answer.as_numpy("boxes").shape == (1, 3, 4) and answer.as_numpy("labels").dtype == np.int64
    assert answer.as_numpy("boxes")[0, 0].tolist() == [10, 20, 60, 70]
    with pytest.raises(InferenceServerException, match="no input called threshold"):
        client.infer(
            "blobs",
            [_input("image", image[None], "UINT8"), _input("threshold", np.array([0.5], np.float32), "FP32")],
        )


def test_one_encoded_image_as_the_whole_body(server: Server, models: dict[str, Path]) -> None:
    image, _ = crack_picture(5, 64, 72)
    answer = server.client.post(
        "/v2/models/walls/infer", content=encoded(image), headers={"Inference-Header-Content-Length": "0"}
    )
    tensors = {o["name"]: o for o in answer.json()["outputs"]}
    assert tensors["mask"]["shape"] == [1, 64, 72]
    expected = segdet.load(models["walls"]).predict(image).mask
    assert (np.array(tensors["mask"]["data"]).reshape(64, 72) == expected).all()


GOOD = {"name": "image", "shape": [1, 2, 2, 3], "datatype": "UINT8", "data": [128] * 12}


def _changed(**entries: Any) -> dict[str, Any]:
    return {"inputs": [{**GOOD, **entries}]}


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ([], "the request: a JSON object"),
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": {"image": 1}}, "inputs"),
        ({"inputs": [3]}, "an input: a JSON object"),
        ({"inputs": [GOOD, GOOD]}, "comes twice"),
        (_changed(name="x"), "no input called image"),
        ({"inputs": [GOOD, {**GOOD, "name": "extra"}]}, "no input called 'extra'"),
        (_changed(name=None), "needs name"),
        (_changed(datatype="FP32"), "UINT8 [N, H, W, 3]"),
        (_changed(datatype="NONSENSE"), "UINT8 [N, H, W, 3]"),
        (_changed(shape=[1, 3, 2, 2]), "UINT8 [N, H, W, 3]"),
        (_changed(shape=[1, -2, -2, 3]), "none negative"),
        (_changed(shape=[1, 2.0, 2, 3]), "whole numbers"),
        (_changed(shape=[1, True, 2, 3]), "whole numbers"),
        (_changed(shape=[1, 2**40, 2**40, 3]), "whole numbers"),
        (_changed(shape=[1, 2**20, 2**20, 3]), "million pixels"),
        (_changed(shape=[2**16, 2**8, 2**8, 3]), "images; 16 at most"),
        (_changed(shape=[1, 0, 2, 3]), "holds nothing"),
        (_changed(shape=[1, 3, 2, 3]), "12 values"),
        (_changed(data=[300] * 12), "values from 300 to 300"),
        (_changed(data=[-1] * 12), "values from -1"),
        (_changed(data=[0.5] * 12), "no array of UINT8"),
        (_changed(data=["a"] * 12), "no array of UINT8"),
        (_changed(data=[None] * 12), "no array"),
        (_changed(data=[10**30] * 12), "no array"),
        (_changed(data=[[1, 2], [3]]), "no array"),
        (_changed(data="AAAA"), "data (a list)"),
        (_changed(parameters=[1]), "parameters"),
        (_changed(parameters={"binary_data_size": 12}), "with 0 bytes left"),
        (_changed(parameters={"binary_data_size": -1}), "with 0 bytes left"),
        (_changed(datatype="BYTES", shape=[1], data=["abc"]), "binary data"),
        ({"inputs": [GOOD], "outputs": [{"name": "masks"}]}, "no output called 'masks'; there are mask, confidence"),
        ({"inputs": [GOOD], "outputs": [{"name": "mask"}, {"name": "mask"}]}, "comes twice"),
        ({"inputs": [GOOD], "outputs": 3}, "outputs: a list"),
        ({"inputs": [GOOD], "id": 7}, "id: a string"),
        ({"inputs": [GOOD], "parameters": {"timeout": "x"}}, "timeout: microseconds, a whole number"),
        ({"inputs": [GOOD], "parameters": {"timeout": 1.5}}, "timeout: microseconds, a whole number"),
        ({"inputs": [GOOD], "parameters": {"timeout": -1}}, "timeout: microseconds, a whole number"),
        ({"inputs": [GOOD, {"name": "threshold", "shape": [1], "datatype": "FP32", "data": [7]}]}, "between 0 and 1"),
        (
            {"inputs": [GOOD, {"name": "threshold", "shape": [2], "datatype": "FP32", "data": [0, 1]}]},
            "shape [] or [1]",
        ),
    ],
)
def test_a_wrong_request_is_told_what_is_wrong_and_harms_nobody(server: Server, message: Any, said: str) -> None:
    answer = server.client.post("/v2/models/walls/infer", json=message)
    statuses = (422,) if said == "between 0 and 1" else (400, 413)
    assert answer.status_code in statuses and set(answer.json()) == {"error"}, answer.text
    assert said in answer.json()["error"]
    good = server.client.post("/v2/models/walls/infer", json={"inputs": [GOOD]})
    assert good.status_code == 200 and good.json()["outputs"][0]["shape"] == [1, 2, 2]


def _binary(header: bytes, rest: bytes) -> dict[str, Any]:
    return {"content": header + rest, "headers": {"Inference-Header-Content-Length": str(len(header))}}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"content": b"{nonsense"}, "not JSON"),
        ({"content": b"[" * 100_000}, "not JSON"),
        ({"content": b'{"inputs": NaN}'}, "NaN is no JSON"),
        ({"content": b'{"inputs": ' + b"9" * 10_000 + b"}"}, "not JSON"),
        ({"content": b"\xff\xfe\x00"}, "not JSON"),
        ({"content": b"{}", "headers": {"Inference-Header-Content-Length": "99"}}, "does not fit"),
        ({"content": b"{}", "headers": {"Inference-Header-Content-Length": "-1"}}, "does not fit"),
        ({"content": b"{}", "headers": {"Inference-Header-Content-Length": "9" * 50}}, "does not fit"),
        ({"content": b"x", "headers": {"Inference-Header-Content-Length": "0"}}, "not an image"),
        (
            _binary(json.dumps(_changed(parameters={"binary_data_size": 11})).encode(), bytes(11)),
            "11 bytes; shape [1, 2, 2, 3] needs 12",
        ),
        (_binary(json.dumps(_changed(parameters={"binary_data_size": 12})).encode(), bytes(14)), "2 bytes more"),
        (
            _binary(
                json.dumps(
                    {
                        "inputs": [
                            GOOD,
                            {
                                "name": "threshold",
                                "shape": [1],
                                "datatype": "FP32",
                                "parameters": {"binary_data_size": 4},
                            },
                        ]
                    }
                ).encode(),
                struct.pack("<f", float("nan")),
            ),
            "between 0 and 1",
        ),
        (
            _binary(
                json.dumps(_changed(datatype="BYTES", shape=[1], parameters={"binary_data_size": 8})).encode(),
                struct.pack("<I", 2**31) + b"abcd",
            ),
            "ends early",
        ),
        (
            _binary(
                json.dumps(_changed(datatype="BYTES", shape=[2**30], parameters={"binary_data_size": 4})).encode(),
                bytes(4),
            ),
            "BYTES of shape [N]",
        ),
    ],
)
def test_wrong_bytes_are_told_too(server: Server, request_: dict[str, Any], said: str) -> None:
    answer = server.client.post("/v2/models/walls/infer", **request_)
    status = 422 if said == "between 0 and 1" else 400
    assert answer.status_code == status and said in answer.json()["error"], answer.text
    assert server.client.post("/v2/models/walls/infer", json={"inputs": [GOOD]}).status_code == 200


def test_an_encoded_image_with_too_many_pixels_is_answered_413_and_a_damaged_one_400(server: Server) -> None:
    def png(side: int) -> bytes:
        header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        head = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
        return head + struct.pack(">I", 100) + b"IDAT"  # and then it ends

    for image, status in ((png(14_000), 413), (png(30_000), 413), (png(64), 400)):
        data = struct.pack("<I", len(image)) + image
        header = _changed(datatype="BYTES", shape=[1], parameters={"binary_data_size": len(data)})
        answer = server.client.post("/v2/models/walls/infer", **_binary(json.dumps(header).encode(), data))
        assert answer.status_code == status, answer.text
        assert ("178 million pixels" in answer.json()["error"]) == (status == 413)


def test_large_images_are_looked_at_again_in_both_apis(start: StartServer, tmp_path: Path) -> None:
    server = start("--model", f"thin={thin_model(tmp_path / 'thin.onnx', down_to=200)}", "--drain-delay", 0)
    image = np.full((400, 600, 3), 255, np.uint8)
    image[:, 100:103], image[:, 400:413] = 0, 0
    expected = segdet.load(tmp_path / "thin.onnx", device="cpu").predict(image)
    assert isinstance(expected, SegmentationResult) and expected.mask[:, 400:413].mean() > 0.9
    tensor = {"name": "image", "shape": [1, 400, 600, 3], "datatype": "UINT8", "data": image.ravel().tolist()}
    outputs = [{"name": "mask", "parameters": {"binary_data": False}}]
    answer = server.client.post("/v2/models/thin/infer", json={"inputs": [tensor], "outputs": outputs})
    assert answer.status_code == 200, answer.text
    assert (np.reshape(answer.json()["outputs"][0]["data"], (400, 600)) == expected.mask).all()
    in_v1 = server.client.post("/v1/predict", params={"format": "mask"}, content=encoded(image))
    assert (np.asarray(Image.open(io.BytesIO(in_v1.content))) == expected.mask).all()
