"""What lies in deploy/: Ray Serve really runs, the container and the manifest name things that exist."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

import segdet
from segdet.cli.serve import serve as serve_command
from segdet.serving.ops import PAGE
from tests.conftest import ROOT
from tests.serving.conftest import wall

DEPLOY = ROOT / "deploy"


def _options(words: list[str]) -> set[str]:
    return {word[2:].replace("-", "_") for word in words if word.startswith("--")}


def test_container_and_manifest_name_options_and_files_that_exist() -> None:
    known = set(inspect.signature(serve_command).parameters)
    text = (DEPLOY / "Dockerfile").read_text()
    for command in re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", text, re.MULTILINE):
        assert _options(json.loads(command)) <= known
    for sources in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    extras = (ROOT / "pyproject.toml").read_text()
    for extra in ("cpu", "gpu", "serve", "tiff"):
        assert re.search(rf"^{extra} = \[", extras, re.MULTILINE)
    runtime, service = yaml.safe_load_all((DEPLOY / "kserve.yaml").read_text())
    (container,) = runtime["spec"]["containers"]
    assert _options(container["args"]) <= known
    assert service["spec"]["predictor"]["model"]["runtime"] == runtime["metadata"]["name"]
    formats = runtime["spec"]["supportedModelFormats"][0]
    assert service["spec"]["predictor"]["model"]["modelFormat"]["name"] == formats["name"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"]["path"] in ("/readyz", "/healthz")
        assert container[probe]["httpGet"]["port"] == container["ports"][0]["containerPort"]


def test_the_wheel_holds_page_model_and_cards(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="the build tool is not in the environment")
    command = [
        sys.executable,
        "-c",
        "import sys; from hatchling.build import build_wheel; build_wheel(sys.argv[1])",
        tmp_path,
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"segdet/serving/page/{file.name}" for file in PAGE.iterdir()} <= names
    assert {"segdet/exports/crack.onnx", "segdet/exports/crack.md", "segdet/datasets/crack-drawn.yaml"} <= names


@pytest.fixture
def ray_address(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Ray on this machine with two replicas."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    for patience in ("READY", "HEALTH"):  # five seconds are not enough on a busy machine
        monkeypatch.setenv(f"RAY_SERVE_PROXY_{patience}_CHECK_TIMEOUT_S", "120")
    import ray
    from ray import serve

    specification = importlib.util.spec_from_file_location("ray_serve", DEPLOY / "ray_serve.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules["ray_serve"] = module
    specification.loader.exec_module(module)
    path = os.pathsep.join([str(DEPLOY), str(ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    variables = {"PYTHONPATH": path, "SEGDET_MODELS": f"walls={models['walls']}", "SEGDET_CORES": "1"}
    runtime = {"env_vars": variables}
    try:
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR", runtime_env=runtime)
    except Exception as error:  # its own processes could not be started in time; nothing of ours has run yet
        pytest.skip(f"Ray does not start on this machine: {error}")
    try:
        port = _free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(module.deployment(replicas=2, cores=1), name="segdet", route_prefix="/")
        yield f"http://127.0.0.1:{port}"
    finally:
        serve.shutdown()
        ray.shutdown()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_ray_serve_runs_two_replicas_of_the_same_application(ray_address: str, models: dict[str, Path]) -> None:
    image = wall(1)
    expected = segdet.load(models["walls"]).predict(image).areas["crack"]
    shared = False  # a replica that has predicted fewer images than were sent: another one has done the rest
    with httpx.Client(base_url=ray_address, timeout=60) as client:
        assert client.get("/readyz").status_code == 200
        for sent in range(1, 31):
            answer = client.post("/v1/predict", files={"image": ("w.png", image)})
            assert answer.json()["images"][0]["classes"]["crack"]["pixels"] == expected
            found = re.search(r"^segdet_images_total\S* (\S+)", client.get("/metrics").text, re.MULTILINE)
            predicted = float(found[1]) if found else 0.0
            assert predicted <= sent
            shared |= predicted < sent
        assert client.post("/v1/predict", content=b"x").status_code == 400
        assert client.get("/v2/models/walls").json()["versions"] == ["1"]
    assert shared
