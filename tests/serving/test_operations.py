"""Load, shutdown, reloading: nobody who was let in is lost, and who cannot be served is told at once."""

from __future__ import annotations

import gc
import json
import logging
import queue
import shutil
import signal
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

import segdet
from segdet import memory
from segdet.errors import InputError
from segdet.serving import logs
from segdet.serving.batching import Batcher
from segdet.serving.metrics import Metrics
from segdet.serving.models import ServedModel
from segdet.serving.refusals import Refused
from segdet.serving.runner import Plan, Runner, plan_for
from segdet.serving.scheduler import Job, Scheduler
from segdet.serving.settings import ServeConfig, named_models
from tests.conftest import Cli
from tests.segmenters import dark_model
from tests.serving.conftest import Server, StartServer, encoded, wall


class Load:
    """Clients that send without pause until told to stop; every outcome is counted."""

    def __init__(self, server: Server, clients: int, body: bytes, url: str = "/v1/predict") -> None:
        self.outcomes: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self._stop = threading.Event()
        self._server, self._body, self._url = server, body, url
        self._threads = [threading.Thread(target=self._send, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        with httpx.Client(base_url=self._server.address, timeout=60) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post(self._url, content=self._body)
                except httpx.ConnectError:
                    self.outcomes["refused"] += 1
                    time.sleep(0.02)
                    continue
                except httpx.TransportError as error:
                    self.outcomes[repr(error)] += 1
                    continue
                self.outcomes[str(answer.status_code)] += 1
                if answer.status_code == 200:
                    self.versions[answer.json()["model"]["version"]] += 1
                else:
                    time.sleep(0.02)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_sigterm_under_load_answers_who_was_let_in_and_lets_nobody_in(
    start: StartServer, models: dict[str, Path]
) -> None:
    server = start("--model", models["walls"], "--drain-delay", 4)
    load = Load(server, 6, wall(1, 200, 200))
    _until(lambda: load.outcomes["200"] > 20)
    server.process.send_signal(signal.SIGTERM)
    _until(lambda: any("stopping" in line for line in server.log))
    with httpx.Client(base_url=server.address) as client:  # still listening, but not ready
        assert client.get("/readyz").status_code == 503 and client.get("/healthz").status_code == 200
        refused = client.post("/v1/predict", content=wall(1))
    assert refused.status_code == 503 and refused.json()["code"] == "shutting_down" and "retry-after" in refused.headers
    assert refused.headers["connection"] == "close"
    assert server.process.wait(30) == 0
    load.stop()
    assert set(load.outcomes) <= {"200", "503", "refused"}, load.outcomes
    assert load.outcomes["503"] and load.outcomes["refused"]
    answered = [line for line in server.log if '"status": 200' in line and "/v1/predict" in line]
    assert len(answered) == load.outcomes["200"]


def test_reload_under_load_loses_none_and_a_bad_file_changes_nothing(
    start: StartServer, models: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "model.onnx"
    shutil.copy(models["walls"], file)
    server = start("--model", f"walls={file}", "--model", models["blobs"])
    load = Load(server, 4, wall(1))
    _until(lambda: load.versions["1"] > 5)
    reload = "/v1/models/walls/reload"

    file.write_bytes(b"half a fi")
    refused = server.client.post(reload)
    assert refused.status_code == 422 and "version 1 goes on serving" in refused.json()["error"]
    broken = onnx.load(models["walls"])
    for node in broken.graph.node:  # a model that runs and answers with nonsense
        for index, name in enumerate(node.output):
            if name == "confidence":
                node.output[index] = "confidence_before"
    minus = onnx.helper.make_tensor("minus_two", onnx.TensorProto.FLOAT, [], [-2.0])
    broken.graph.initializer.append(minus)
    broken.graph.node.append(onnx.helper.make_node("Add", ["confidence_before", "minus_two"], ["confidence"]))
    onnx.save(broken, file)
    refused = server.client.post(reload)
    assert refused.status_code == 422 and "self-test" in refused.json()["error"], refused.text
    file.unlink()
    assert server.client.post(reload).status_code == 422
    assert server.client.get("/v1/models/walls").json()["version"] == "1"

    shutil.copy(models["walls"], file)
    assert server.client.post(reload).json()["version"] == "2"
    assert server.client.post("/v1/models/none/reload").status_code == 404
    _until(lambda: load.versions["2"] > 5)
    load.stop()
    assert set(load.outcomes) == {"200"}, load.outcomes
    text = server.client.get("/metrics").text
    assert 'segdet_model_reloads_total{model="walls",result="ok"} 1.0' in text
    assert 'segdet_model_reloads_total{model="walls",result="failed"} 3.0' in text


def test_answers_on_an_open_connection_do_not_wait_for_acknowledgements(server: Server) -> None:
    """With Nagle's algorithm every answer's body comes 40 ms after its headers."""
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        assert server.client.get("/healthz").status_code == 200
        taken.append(time.perf_counter() - began)
    assert min(taken[5:]) < 0.03, "of all requests the fastest: other work on the machine must not decide"


def test_a_full_queue_refuses_at_once_and_a_deadline_ends_the_wait(start: StartServer, models: dict[str, Path]) -> None:
    server = start("--model", models["walls"], "--workers", 1, "--queue", 1, "--threads", 1)
    image = wall(1, 900, 900)

    def send(_: int) -> tuple[int, dict[str, str], str]:
        answer = httpx.post(server.address + "/v1/predict", content=image, timeout=60)
        return answer.status_code, dict(answer.headers), answer.text

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    codes = Counter(code for code, _, _ in answers)
    assert set(codes) == {200, 503} and codes[503] >= 4, codes
    for code, headers, text in answers:
        if code == 503:
            assert int(headers["retry-after"]) >= 1 and "overloaded" in text
    late = httpx.post(server.address + "/v1/predict", headers={"x-timeout": "0.001"}, content=image, timeout=60)
    assert late.status_code == 504 and late.json()["code"] == "deadline"
    assert server.good()
    text = server.client.get("/metrics").text
    assert f'segdet_rejected_total{{reason="overloaded"}} {codes[503]}.0' in text


def test_the_log_is_json_lines_whatever_goes_wrong(start: StartServer, models: dict[str, Path]) -> None:
    server = start("--model", models["walls"], "--workers", 1, "--threads", 1, "--drain-delay", 0)
    post = server.client.post
    for seconds in ("0.0001", "0.001", "0.02", "0.05", "0.1", "0.3"):
        late = post("/v1/predict", headers={"x-timeout": seconds}, content=wall(1, 1500, 1500))
        assert late.status_code in (200, 503, 504) and "0.0 s" not in late.text, late.text
        if seconds == "0.0001":
            assert late.status_code == 504
    for body in (b"x", b"--b\r\nnonsense", b"--b--\r\n" + bytes(9)):
        damaged = post("/v1/predict", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
        assert damaged.status_code == 400
    _until(server.good)
    assert server.stop() == 0
    _until(lambda: '"stopped"' in server.log[-1])
    kinds = Counter(json.loads(line)["kind"] for line in server.log)
    assert set(kinds) == {"event", "request"}, server.log


def test_what_libraries_log_is_a_json_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, "%s went\nwrong", ("it",), sys.exc_info())
    logs.Lines("json").emit(record)
    line = json.loads(capsys.readouterr().err)
    assert (line["level"], line["kind"], line["logger"]) == ("error", "library", "asyncio")
    assert line["message"] == "it went\nwrong" and "ValueError: no" in line["traceback"]


def test_batches_give_the_same_answers(start: StartServer, models: dict[str, Path]) -> None:
    server = start("--model", models["walls"], "--batch", 4, "--workers", 8, "--batch-wait", 0.2)
    images = [wall(seed, *size) for seed, size in enumerate([(64, 64)] * 6 + [(64, 80)] * 4)]
    expected = [segdet.load(models["walls"]).predict(image).areas["crack"] for image in images]

    def send(image: bytes) -> int:
        answer = httpx.post(server.address + "/v1/predict", content=image, timeout=60)
        return int(answer.json()["images"][0]["classes"]["crack"]["pixels"])

    with ThreadPoolExecutor(10) as pool:
        assert list(pool.map(send, images)) == expected
    lines = dict(line.rsplit(" ", 1) for line in server.client.get("/metrics").text.splitlines() if line[0] != "#")
    assert (
        float(lines['segdet_batch_size_count{model="walls"}']) < 10 + 10
    )  # fewer inferences than images (and the warm-up)


def test_a_batcher_joins_what_fits_and_lets_nobody_wait_in_vain() -> None:
    seen: list[tuple[int, ...]] = []

    def run(images: np.ndarray, threshold: float | None) -> tuple[np.ndarray, ...]:
        seen.append(images.shape)
        if threshold == 0.0:
            raise ValueError("broken")
        return images[:, 0, 0, 0].astype(np.int64), images.astype(np.float32)

    batcher = Batcher(run, size=4, wait=0.2, expected=lambda: 9)
    kinds = [((8, 8), 0.5), ((8, 8), 0.5), ((8, 8), 0.5), ((4, 8), 0.5), ((8, 8), 0.7), ((4, 8), 0.5), ((8, 8), 0.5),
             ((8, 8), 0.5), ((8, 8), 0.0)]  # fmt: skip

    def send(number: int) -> object:
        (height, width), threshold = kinds[number]
        try:
            values, whole = batcher.run(np.full((1, height, width, 3), number, np.uint8), threshold)
        except ValueError as error:
            return str(error)
        assert whole.shape == (1, height, width, 3)
        return int(values[0])

    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(send, range(9))) == [*range(8), "broken"]
    assert sorted(seen, key=str) == sorted(
        [(4, 8, 8, 3), (1, 8, 8, 3), (2, 4, 8, 3), (1, 8, 8, 3), (1, 8, 8, 3)], key=str
    )
    lonely = Batcher(run, size=4, wait=60.0, expected=lambda: 1)
    assert lonely.run(np.zeros((1, 2, 2, 3), np.uint8), None)[0].tolist() == [0]
    for closing in (batcher, lonely):
        closing.close()
        assert closing.run(np.zeros((1, 2, 2, 3), np.uint8), None)[0].tolist() == [0]


def test_a_batcher_outlives_whatever_goes_wrong_around_a_batch() -> None:
    def observe(count: int) -> None:
        if count == 3:
            raise ValueError("no counter")

    batcher = Batcher(lambda images, threshold: (images[:, 0, 0, 0],), 8, 60.0, lambda: 2, observe)
    pixel = np.zeros((1, 1, 1, 3), np.uint8)
    huge = np.broadcast_to(pixel, (1, 1 << 24, 1 << 24, 3))  # takes no memory until two are joined; then 2 petabytes

    def send(images: np.ndarray) -> None:
        try:
            answers.put(batcher.run(images)[0].tolist())
        except (MemoryError, ValueError) as error:
            answers.put("no memory" if isinstance(error, MemoryError) else str(error))

    answers: queue.Queue[object] = queue.Queue()
    for pair, told in (([huge, huge], "no memory"), ([pixel, pixel.repeat(2, 0)], "no counter"), ([pixel] * 2, [0])):
        for images in pair:
            threading.Thread(target=send, args=(images,), daemon=True).start()
        assert [answers.get(timeout=20) for _ in pair] == [told, told]
    batcher.close()


def test_the_scheduler_keeps_its_bounds() -> None:
    release = threading.Event()
    forever = time.monotonic() + 60

    def jobs(count: int, deadline: float = forever) -> list[Job]:
        return [Job(lambda job: release.wait(10), 1.0, deadline) for _ in range(count)]

    scheduler = Scheduler(workers=2, queue=3, max_wait=60, pace=0.1)
    first = jobs(5)
    scheduler.submit(first[:2])
    _until(lambda: scheduler.running == 2)
    scheduler.submit(first[2:])
    with pytest.raises(Refused) as refused:
        scheduler.submit(jobs(1))
    assert refused.value.status == 503 and refused.value.retry_after
    assert scheduler.waiting == 3
    first[2].future.cancel()  # its client has gone
    first[3].deadline = 0.0
    release.set()
    assert first[4].future.result(10) and first[0].future.result(10)
    with pytest.raises(Refused) as late:
        first[3].future.result(10)
    assert late.value.status == 504 and first[2].future.cancelled()

    def fail(job: Job) -> None:
        raise ValueError("no")

    broken = Job(fail, 1.0, forever)
    scheduler.submit([broken])
    with pytest.raises(ValueError):
        broken.future.result(10)
    scheduler.submit(jobs(2))  # the workers live on
    scheduler.close(10)
    with pytest.raises(Refused):
        scheduler.submit(jobs(1))


def test_who_would_wait_too_long_is_not_let_in() -> None:
    release = threading.Event()
    scheduler = Scheduler(workers=1, queue=100, max_wait=0.25, pace=0.1)
    forever = time.monotonic() + 60
    admitted = []
    for _ in range(20):
        try:
            scheduler.submit([Job(lambda job: release.wait(10), 1.0, forever)])
            admitted.append(1)
        except Refused as refused:
            assert "the wait would be" in refused.message
    assert 2 <= len(admitted) <= 4
    release.set()
    scheduler.close(10)


def test_the_machine_decides_how_work_is_shared_out() -> None:
    assert plan_for(False, ServeConfig(), 8) == Plan(workers=8, threads=1, batch=1, wide=True)
    explicit = plan_for(False, ServeConfig(workers=2, threads=4, batch=3), 8)
    assert (explicit.workers, explicit.threads, explicit.batch, explicit.wide) == (2, 4, 3, False)
    on_gpu = plan_for(True, ServeConfig(), 8)
    assert on_gpu.batch == 8 and on_gpu.workers > on_gpu.batch and not on_gpu.wide


def test_models_are_named_on_the_command_line(cli: Cli, models: dict[str, Path], tmp_path: Path) -> None:
    assert named_models(["a=x.onnx", "some dir/b c.onnx"]) == {"a": Path("x.onnx"), "b-c": Path("some dir/b c.onnx")}
    with pytest.raises(InputError, match="the name x is taken"):
        named_models(["x.onnx", "x=y.onnx"])
    with pytest.raises(InputError, match="queue=-1: must be at least 0"):
        ServeConfig.from_options(queue=-1)
    for arguments, said in (
        (("--model", "a/b=x.onnx", "--model", "c=y.onnx"), "a name has letters"),
        (("--model", tmp_path / "none.onnx", "--port", 0), "no such model file"),
        (("--model", models["walls"], "--port", 70000), "--port 70000"),
        (("--max-pixels", -4), "--max-pixels -4: must be more than 0"),
        (("--max-body", 0), "--max-body 0: must be more than 0"),
        (("--timeout", "nan"), "--timeout nan: must be"),
        (("--body-timeout", "inf"), "--body-timeout inf: must be"),
        (("--max-wait", "nan"), "--max-wait nan: must be"),
        (("--model", models["walls"], "--drain-delay", "inf"), "--drain-delay inf: must be"),
    ):
        done = cli("serve", *arguments, cwd=tmp_path)
        assert done.returncode == 2 and said in done.stderr.splitlines()[-1], done.stderr


def test_a_taken_port_is_one_line(server: Server, cli: Cli, models: dict[str, Path]) -> None:
    port = server.address.rsplit(":", 1)[1]
    done = cli("serve", "--model", models["blobs"], "--port", port)
    assert done.returncode == 2 and f"--port {port}: Address already in use" in done.stderr.splitlines()[-1]


def test_a_reload_keeps_nothing_of_the_model_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its session nor, after a file that is refused, what was opened of it; and freed memory is given back each time."""
    file, trimmed = dark_model(tmp_path / "model.onnx"), []
    monkeypatch.setattr(memory, "trim", lambda: trimmed.append(gone()))
    opened: list[weakref.ref[Runner]] = []
    before = Runner.__init__

    def watching(self: Runner, *rest: Any) -> None:
        opened.append(weakref.ref(self))
        before(self, *rest)

    def gone() -> list[bool]:
        return [runner() is None for runner in opened]

    monkeypatch.setattr(Runner, "__init__", watching)
    served = ServedModel("walls", file, ServeConfig(model=[f"walls={file}"], device="cpu"), Metrics())
    try:
        for _ in range(2):
            served.reload()
        file.write_bytes(b"half a file")
        with pytest.raises(Refused):
            served.reload()
        gc.collect()  # of the refusal: exceptions and their frames refer to each other
        assert len(trimmed) == 3 and trimmed[:2] == [[True, False], [True, True, False]]
        assert gone() == [True, True, False, True]
    finally:
        assert served.scheduler is not None
        served.scheduler.close(1)
        served.current.runner.close()


def test_the_newest_export_is_served_and_taken_again_on_reload(
    start: StartServer, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exports").mkdir()
    shutil.copy(models["walls"], tmp_path / "exports" / "old.onnx")
    monkeypatch.chdir(tmp_path)
    server = start("--drain-delay", 0)
    assert server.client.get("/v1/models").json()["models"][0]["file"] == "old.onnx"
    time.sleep(0.02)
    shutil.copy(models["blobs"], tmp_path / "exports" / "new.onnx")
    assert server.client.post("/v1/models/default/reload").json()["task"] == "detection"
    assert server.client.post("/v1/predict", content=encoded(np.zeros((9, 9, 3), np.uint8))).status_code == 200
