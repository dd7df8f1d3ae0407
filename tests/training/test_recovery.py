"""What a run survives: loss that is no number, memory that runs out, workers and processes that are killed, full disks."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from torch import nn

import segdet
from segdet import files
from segdet.data.loading import loader
from segdet.data.loading.datasets import Key, collate
from segdet.data.loading.loader import Stream
from segdet.errors import InputError, SegdetError
from segdet.models.registry import build_model
from segdet.training import checkpoints
from segdet.training.config import TrainConfig
from segdet.training.memory import batch_that_fits, bytes_per_image
from segdet.training.run import find_lr, train
from segdet.training.segmentation import SegmentationTask
from tests.conftest import TINY, Cli


def same_weights(one: Path, two: Path, which: str = "last") -> bool:
    a, b = (safetensors.torch.load_file(run / "weights" / f"{which}.safetensors") for run in (one, two))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class _Bad:
    """A loss that is no number at the given calls."""

    def __init__(self, calls: set[int]) -> None:
        self.calls, self.count, self.loss = calls, 0, SegmentationTask.loss

    def __call__(self, task: SegmentationTask, network: nn.Module, batch: object) -> torch.Tensor:
        self.count += 1
        value = self.loss(task, network, batch)  # type: ignore[arg-type]
        return value * float("nan") if self.count in self.calls else value


def test_a_loss_that_is_no_number_goes_back_with_lower_rates(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = _Bad({9, 14})  # 6 steps an epoch: in the second epoch, and again in its repetition
    monkeypatch.setattr(SegmentationTask, "loss", lambda *arguments: bad(*arguments))
    run = segdet.train("unet", str(walls), **TINY, epochs=3, out=str(tmp_path))
    said = capfd.readouterr().err
    assert (
        "the loss is not a number (epoch 2, step 6): going back to epoch 2, step 1, with 0.5 of the learning rate"
        in said
    )
    assert "with 0.25 of the learning rate" in said
    weights = safetensors.torch.load_file(run / "weights" / "last.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values() if tensor.is_floating_point())
    assert len((run / "results.csv").read_text().splitlines()) == 4
    assert bad.count == 30  # both times the whole of the second epoch again


def test_a_loss_that_stays_no_number_ends_the_run_in_clear_words(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = _Bad(set(range(1, 1000)))
    monkeypatch.setattr(SegmentationTask, "loss", lambda *arguments: bad(*arguments))
    with pytest.raises(
        SegdetError, match=r"not a number \(epoch 1, step 6\), also after going back 3 times .*lower lr"
    ):
        segdet.train("unet", str(walls), **TINY, epochs=1, out=str(tmp_path))
    assert bad.count == 24
    state = checkpoints.load_state(tmp_path / "unet-walls")
    assert all(bool(torch.isfinite(t).all()) for t in state["model"].values() if t.is_floating_point())


def test_a_gradient_that_is_no_number_is_noticed_too(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    loss, count = SegmentationTask.loss, 0

    def overflow(task: SegmentationTask, network: nn.Module, batch: object) -> torch.Tensor:
        nonlocal count
        count += 1
        value = loss(task, network, batch)  # type: ignore[arg-type]
        if count == 3:
            value.register_hook(lambda gradient: gradient * float("inf"))
        return value

    monkeypatch.setattr(SegmentationTask, "loss", overflow)
    segdet.train("unet", str(walls), **TINY, epochs=1, out=str(tmp_path))
    assert "going back to epoch 1, step 1" in capfd.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[..] DefaultCPUAllocator: can't allocate memory: you"),
    ],
)
def test_out_of_memory_computes_batches_in_parts(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: RuntimeError
) -> None:
    loss, sizes = SegmentationTask.loss, []

    def small(task: SegmentationTask, network: nn.Module, batch: object) -> torch.Tensor:
        sizes.append(len(batch.indices))  # type: ignore[attr-defined]
        if sizes[-1] > 1:
            raise error
        return loss(task, network, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(SegmentationTask, "loss", small)
    run = segdet.train("unet", str(walls), **TINY, epochs=2, out=str(tmp_path))
    said = capfd.readouterr().err
    assert said.count("out of memory") == 2 and "now computed in 4 parts" in said
    assert sizes == [4, 2] + [1] * 48
    assert checkpoints.load_state(run)["parts"] == 4
    with monkeypatch.context() as patch, pytest.raises(SegdetError, match="one image at a time; use a smaller imgsz"):
        patch.setattr(SegmentationTask, "loss", lambda *_: (_ for _ in ()).throw(error))
        segdet.train("unet", str(walls), **TINY, epochs=1, out=str(tmp_path))


def test_other_errors_are_not_taken_for_want_of_memory(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(SegmentationTask, "loss", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        segdet.train("unet", str(walls), **TINY, epochs=1, out=str(tmp_path))


def test_parts_have_the_gradient_of_the_whole(walls: Path, tmp_path: Path) -> None:
    """A network without batch norm and a loss that is a mean over images: nothing but rounding may differ."""
    ends = []
    for accumulate in (1, 3):
        settings = {**PLAIN, "batch": 6, "accumulate": accumulate, "out": str(tmp_path), "name": str(accumulate)}
        run = segdet.train("segmenter", str(walls), **settings)
        ends.append(safetensors.torch.load_file(run / "weights" / "last.safetensors"))
    for name, tensor in ends[0].items():
        assert torch.allclose(tensor, ends[1][name], atol=1e-6), name


# Three plain gradient steps of a network without batch norm.
PLAIN = {
    "backbone": "test_vit", "weights": "none", "options": {"decoder": "linear"}, "imgsz": 64, "batch": 8, "epochs": 1,
    "optimizer": "sgd", "lr": 0.1, "loss": "ce", "ema": 0.0, "precision": "fp32", "device": "cpu", "workers": 0,
}  # fmt: skip


class _Numbers:
    """Samples that are their own index; some end the process that makes them, as often as `deaths` says."""

    def __init__(self, marks: Path, deadly: int, deaths: int) -> None:
        self.marks, self.deadly, self.deaths = marks, deadly, deaths

    def __getitem__(self, key: Key) -> tuple[int, np.ndarray, np.ndarray]:
        if key[1] == self.deadly:
            count = len(list(self.marks.iterdir()))
            if count < self.deaths:
                (self.marks / str(count)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return key[1], np.zeros((2, 2, 3), np.uint8), np.zeros((2, 2), np.uint8)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_is_replaced_and_nothing_is_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], workers: int
) -> None:
    plan = [[(0, 2 * k), (0, 2 * k + 1)] for k in range(8)]
    batches = Stream(_Numbers(tmp_path, 9, 2), plan, workers, collate=collate)  # type: ignore[arg-type]
    for _ in range(2):  # workers live on from one pass to the next
        assert [batch.indices for batch in batches] == [[2 * k, 2 * k + 1] for k in range(8)]
    said = capfd.readouterr().err
    assert said.count("a loader worker") == 2


def test_workers_that_always_die_name_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = [[(0, k)] for k in range(6)]
    batches = Stream(_Numbers(tmp_path, 3, 99), plan, 1, collate=collate)  # type: ignore[arg-type]
    with pytest.raises(SegdetError, match=r"died 3 times over the same images .*workers=0"):
        list(batches)
    assert loader._TRIES == 3


def _resumed(walls: str, out: str, name: str) -> None:
    """Train, or go on, in a process that may be killed at any time."""
    torch.set_num_threads(1)
    run = Path(out) / name
    if (run / checkpoints.FILE).exists():
        train(TrainConfig.from_file(run / "config.yaml"), resume=run)
    else:
        train(killable(walls, out, name))


def killable(walls: str, out: str, name: str) -> TrainConfig:
    return TrainConfig.from_options(
        arch="unet", data=walls, **{**TINY, "batch": 2}, epochs=16, val_every=8, save_every="0.01s", out=out, name=name
    )


def test_twenty_kills_at_random_moments_change_nothing(walls: Path, tmp_path: Path) -> None:
    straight, run = tmp_path / "straight", tmp_path / "killed"
    moments = random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["segdet.training.run"])
    whole = context.Process(target=_resumed, args=(str(walls), str(tmp_path), "straight"))
    whole.start()
    whole.join(200)
    assert whole.exitcode == 0
    seen: list[tuple[int, int]] = []
    while True:
        child = context.Process(target=_resumed, args=(str(walls), str(tmp_path), "killed"))
        before = written(run)
        child.start()
        # Most are killed some time after they have saved something, some while they start.
        deadline = time.monotonic() + 60
        waits = before is None or len(seen) % 5 != 4
        while waits and written(run) == before and child.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        child.join(moments.uniform(0.0, 0.3) if len(seen) < 20 else 200)
        if not child.is_alive():
            break
        child.kill()
        child.join()
        state = checkpoints.load_state(run)  # whole and readable, whenever the process died
        seen.append((state["epoch"], state["start"]))
    assert child.exitcode == 0
    assert len(seen) >= 10 and seen == sorted(seen) and len(set(seen)) >= 8, seen
    assert same_weights(straight, run, "last") and same_weights(straight, run, "best")
    assert not list((run / "resume").glob(".*"))  # what a killed process left half-written is cleared away


def written(run: Path) -> int | None:
    file = run / checkpoints.FILE
    return file.stat().st_mtime_ns if file.exists() else None


def test_a_disk_that_fills_up_leaves_everything_older_intact(
    walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th write after the first saved state fails; the state of an earlier moment always remains."""
    saves = 0

    sync = files._sync

    def full(path: Path) -> None:
        nonlocal saves
        saves += (tmp_path / name / checkpoints.FILE).exists()
        if saves == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(path)

    monkeypatch.setattr(files, "_sync", full)
    for failing in (2, 7, 14):
        saves = 0
        name = f"full-{failing}"
        with pytest.raises(OSError, match="No space left"):
            segdet.train("unet", str(walls), **TINY, epochs=4, out=str(tmp_path), name=name)
        failing = -1
        run = tmp_path / name
        assert not [path for path in run.rglob(".*") if path.is_file()]
        train(TrainConfig.from_file(run / "config.yaml"), resume=run)
        assert len((run / "results.csv").read_text().splitlines()) == 5


def test_a_state_that_cannot_be_written_names_the_file_and_keeps_the_older_one(tmp_path: Path) -> None:
    """A limit of the file size stands for the full disk: the system's own reason arrives, whichever write it meets."""
    checkpoints.save_state(tmp_path, {"epoch": 1})
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        for limit in (1, 20_000, 500_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            with pytest.raises(OSError, match="File too large") as caught:
                checkpoints.save_state(tmp_path, {"epoch": 2, "tensor": torch.zeros(200_000)})
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert caught.value.errno == errno.EFBIG and caught.value.filename == str(tmp_path / checkpoints.FILE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    (tmp_path / "config.yaml").write_text("")
    assert checkpoints.load_state(tmp_path) == {"epoch": 1}
    assert not [path for path in tmp_path.rglob(".*") if path.is_file()]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A file system of 3 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "segdet-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting is not allowed here; the injected errors of the test above stand for it")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_line(walls: Path, small_disk: Path, cli: Cli) -> None:
    options = [f"--{key.replace('_', '-')}={value}" for key, value in TINY.items() if key not in ("options", "ema")]
    done = cli("train", "unet", "--data", walls, *options, "--epochs", "3", "--out", small_disk / "runs")
    assert done.returncode == 1
    assert "No space left" in done.stderr and "nothing half-written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [path for path in small_disk.rglob(".*") if path.is_file()]


def in_two_processes(folder: Path, **settings: object) -> subprocess.CompletedProcess[str]:
    """`segdet train` with these settings by torchrun, two processes on this machine."""
    config = folder / f"{settings['name']}.yaml"
    config.write_text(yaml.safe_dump({**settings, "out": str(folder)}))
    return torchrun("train", "--config", str(config))


def torchrun(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_torchrun(*arguments), env=_two_threads(), capture_output=True, text=True, timeout=300)


def _torchrun(*arguments: str) -> list[str]:
    return [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0", "--rdzv_backend=c10d",
        "--rdzv_endpoint=localhost:0", "-m", "segdet", *arguments,
    ]  # fmt: skip


def _two_threads() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}


def apart(one: Path, two: Path, which: str = "last") -> float:
    """Largest difference of the weights of two runs."""
    a, b = (safetensors.torch.load_file(run / "weights" / f"{which}.safetensors") for run in (one, two))
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_two_processes_learn_what_one_learns_with_twice_the_batch(walls: Path, tmp_path: Path) -> None:
    one = segdet.train("segmenter", str(walls), **PLAIN, out=str(tmp_path), name="one")
    done = in_two_processes(tmp_path, **{**PLAIN, "arch": "segmenter", "data": str(walls), "batch": 4, "name": "two"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr.count("epoch 1/1") == 1  # one speaks for both
    two = tmp_path / "two"
    assert apart(one, two) < 1e-5
    scores = [json.loads((run / "metrics.json").read_text()) for run in (one, two)]
    rows = [(run / "results.csv").read_text().splitlines()[1].split(",") for run in (one, two)]
    assert scores[0]["iou"] == pytest.approx(scores[1]["iou"], abs=1e-6) and scores[1]["images"] == 6
    assert float(rows[0][4]) == pytest.approx(float(rows[1][4]), abs=1e-6)  # the epoch's IoU, counted by both together


def test_what_stops_one_process_is_told_once(tmp_path: Path) -> None:
    done = in_two_processes(
        tmp_path, **{**PLAIN, "arch": "segmenter", "data": str(tmp_path / "nowhere"), "name": "two"}
    )
    assert done.returncode != 0 and not (tmp_path / "two").exists()
    told = [line for line in done.stderr.splitlines() if line.startswith("segdet: ")]
    assert sum("nowhere: no such folder" in line for line in told) == 1
    assert not any("unexpected" in line for line in told), told


def test_a_shared_network_learns_the_same_and_goes_on(walls: Path, tmp_path: Path) -> None:
    """FSDP: averaged weights, whole files, and a resumed run that ends where a straight one does."""
    settings = {**PLAIN, "arch": "segmenter", "data": str(walls), "batch": 8, "epochs": 2, "ema": 0.9}
    one = segdet.train(**settings, out=str(tmp_path), name="one")
    shared = {**settings, "batch": 4, "fsdp": True}
    done = in_two_processes(tmp_path, **{**shared, "name": "two"})
    assert done.returncode == 0, done.stderr[-2000:]
    assert apart(one, tmp_path / "two") < 2e-5
    assert json.loads((tmp_path / "two" / "metrics.json").read_text())["images"] == 6
    longer = {**shared, "epochs": 12, "val_every": 6, "save_every": "0.01s"}
    straight = in_two_processes(tmp_path, **{**longer, "name": "straight"})
    assert straight.returncode == 0, straight.stderr[-2000:]
    (tmp_path / "stopped.yaml").write_text(yaml.safe_dump({**longer, "name": "stopped", "out": str(tmp_path)}))
    stopped = subprocess.Popen(_torchrun("train", "--config", str(tmp_path / "stopped.yaml")), env=_two_threads())
    file = tmp_path / "stopped" / checkpoints.FILE
    deadline = time.monotonic() + 600
    while not (file.exists() and checkpoints.load_state(file.parent.parent)["epoch"] >= 2):
        assert stopped.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    stopped.terminate()
    stopped.wait(60)
    assert checkpoints.load_state(tmp_path / "stopped")["epoch"] < 12
    resumed = torchrun("train", "--resume", str(tmp_path / "stopped"))
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert apart(tmp_path / "straight", tmp_path / "stopped") < 1e-6
    with pytest.raises(InputError, match="start several: torchrun"):
        segdet.train(**settings, fsdp=True, out=str(tmp_path), name="alone")


def test_the_backbone_rests_for_the_first_epochs(walls: Path, tmp_path: Path) -> None:
    settings = {**TINY, "out": str(tmp_path), "ema": 0.0}
    resting = segdet.train("unet", str(walls), **settings, freeze_epochs=1, epochs=1, name="resting")
    moving = segdet.train("unet", str(walls), **settings, freeze_epochs=1, epochs=2, name="moving")
    torch.manual_seed(0)
    fresh, _ = build_model("unet", TINY["backbone"], ["crack"], "none", TINY["options"], 64)
    start = fresh.state_dict()
    kept, learnt = (safetensors.torch.load_file(run / "weights" / "last.safetensors") for run in (resting, moving))
    inner = [name for name in start if name.startswith("encoder.model") and name.endswith(("weight", "running_mean"))]
    assert inner and all(torch.equal(start[name], kept[name]) for name in inner)
    assert any(not torch.equal(start[name], learnt[name]) for name in inner)


def test_patience_ends_a_run_that_stands_still(walls: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run = segdet.train("unet", str(walls), **{**TINY, "lr": 1e-9, "ema": 0.0}, epochs=30, patience=2, out=str(tmp_path))
    rows = (run / "results.csv").read_text().splitlines()
    assert len(rows) < 12 and "stopped early: iou has not risen for 2 epochs" in capfd.readouterr().err
    assert (run / "metrics.json").exists()


def test_patience_waits_for_a_validation(walls: Path, tmp_path: Path) -> None:
    settings = {**TINY, "lr": 1e-9, "ema": 0.0}
    run = segdet.train("unet", str(walls), **settings, epochs=30, val_every=3, patience=2, out=str(tmp_path))
    rows = len((run / "results.csv").read_text().splitlines()) - 1
    assert rows % 3 == 0 and 6 <= rows < 15
    assert (run / "weights" / "best.safetensors").is_file() and (run / "metrics.json").is_file()


def test_a_run_killed_in_its_last_measurement_is_measured_on_resuming(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    before = json.loads((run / "metrics.json").read_text())
    for name in ("metrics.json", "report.html"):
        (run / name).unlink()
    train(TrainConfig.from_file(run / "config.yaml"), resume=run)
    after = json.loads((run / "metrics.json").read_text())
    assert after["iou"] == before["iou"] and (run / "report.html").is_file()


def test_a_learning_rate_is_found_and_drawn(walls: Path, tmp_path: Path, cli: Cli) -> None:
    run, found = find_lr(TrainConfig.from_options(arch="unet", data=str(walls), **TINY, out=str(tmp_path)))
    assert 1e-5 < found.lr < 0.3 and len(found.rates) == len(found.losses) > 20
    assert (run / "find-lr.png").stat().st_size > 5000
    assert not (run / "weights").exists()
    done = cli("train", "unet", "--find-lr", "--resume", tmp_path / "unet-walls")
    assert done.returncode == 2 and "--find-lr starts anew" in done.stderr


def test_batch_auto_counts_memory(walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from segdet.training import memory, run

    setup, _ = run.prepared(TrainConfig.from_options(arch="unet", data=str(walls), **TINY), True)
    small = bytes_per_image(setup)
    setup.imgsz = 128
    assert 3.5 < bytes_per_image(setup) / small < 4.5  # four times the pixels
    assert batch_that_fits(setup, 8) == 2  # 24 photographs: eight steps an epoch would be 3 images, a power of two is 2
    monkeypatch.setattr(memory, "_free", lambda _: 0.0)
    assert batch_that_fits(setup, 8) == 1
    done = segdet.train("unet", str(walls), **{**TINY, "batch": "auto"}, epochs=1, out=str(tmp_path))
    assert "batch: 1\n" in (done / "config.yaml").read_text()


def test_compiled_networks_keep_their_names(walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler itself takes a minute; that it is asked for, once and for one size, is what is ours."""
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **settings: asked.append(settings))
    run = segdet.train("segmenter", str(walls), **{**PLAIN, "out": str(tmp_path)}, compile=True)
    assert asked == [{"dynamic": False}]
    assert not any("_orig_mod" in name for name in safetensors.torch.load_file(run / "weights" / "last.safetensors"))
