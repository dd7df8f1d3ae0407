"""What training does on a GPU, as far as it can be proved without one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import segdet
from segdet.errors import InputError
from segdet.models import devices
from segdet.models.detection import Predictions, Target
from segdet.training import devices as training_devices
from segdet.training import memory
from segdet.training.config import TrainConfig
from segdet.training.loop import Trainer
from segdet.training.matcher import Matcher
from segdet.training.run import prepared
from segdet.training.segmentation import SegmentationTask
from segdet.training.stepper import Stepper, out_of_memory
from tests.conftest import TINY
from tests.drawn import yolo_dataset


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("device", "world", "own", "said"),
    [
        ("cuda:2", "1", "0", "2 GPUs, numbered from 0"),
        ("cuda:1", "2", "0", "each of several processes uses a GPU of its own"),
        ("cuda", "4", "2", "process 3 of this machine has no GPU, there are 2; start at most 2"),
        ("cuda:x", "1", "0", "say auto, cpu, cuda or cuda:N"),
    ],
)
def test_gpus_that_are_not_there(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, device: str, world: str, own: str, said: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", world)
    monkeypatch.setenv("LOCAL_RANK", own)
    with pytest.raises(InputError, match=said):
        training_devices.accelerator(device, "auto")


def test_pytorch_says_why_it_has_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def old() -> None:
        raise RuntimeError(
            "The NVIDIA driver on your system is too old (found version 12020). Please update it from: URL"
        )

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", old)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(InputError, match=r"too old \(found version 12020\) \(PyTorch is built for CUDA 13.0\)"):
        devices.chosen("cuda")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(InputError, match="built without CUDA"):
        devices.chosen("cuda:0")


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "GET was unable to find an engine to execute this computation",
    ],
)
def test_libraries_that_run_out_of_memory(words: str) -> None:
    assert out_of_memory(RuntimeError(words))
    assert not out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))


def test_a_batch_size_is_chosen_where_counting_does_not_fit(walls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> float:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(memory, "bytes_per_image", full)
    options = {**TINY, "batch": "auto"}
    setup, _ = prepared(TrainConfig.from_options(arch="unet", data=str(walls), **options))
    assert setup.config.images == 1


def test_waiting_while_the_gpu_works_is_no_loss(walls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader is slow either way; what counts is whether the device had something to do meanwhile."""
    shares: list[float] = []
    for idle in (True, False):
        monkeypatch.setattr(Stepper, "idle", property(lambda _, idle=idle: idle))
        run = segdet.train("unet", str(walls), **TINY, epochs=1, out=str(tmp_path))
        rows = (run / "results.csv").read_text().splitlines()
        shares.append(float(rows[1].split(",")[rows[0].split(",").index("data_wait")]))
    assert shares[0] > 0 and shares[1] == 0


def test_algorithms_are_searched_only_where_sizes_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walls = yolo_dataset(tmp_path / "walls", train=4, val=2)
    seen: dict[str, set[bool]] = {"train": set(), "val": set()}
    loss, validate = SegmentationTask.loss, Trainer.validate

    def training(task: SegmentationTask, *arguments: object) -> torch.Tensor:
        seen["train"].add(torch.backends.cudnn.benchmark)
        return loss(task, *arguments)  # type: ignore[arg-type]

    def validating(trainer: Trainer) -> object:
        seen["val"].add(torch.backends.cudnn.benchmark)
        return validate(trainer)

    monkeypatch.setattr(SegmentationTask, "loss", training)
    monkeypatch.setattr(Trainer, "validate", validating)
    segdet.train("unet", str(walls), **TINY, epochs=1, out=str(tmp_path))
    assert seen == {"train": {True}, "val": {False}} and not torch.backends.cudnn.benchmark
    small = {
        "backbone": "resnet18",
        "weights": "none",
        "imgsz": 64,
        "batch": 2,
        "device": "cpu",
        "workers": 0,
        "precision": "fp32",
    }
    for arch, few in (("detr", False), ("dfine", True)):
        _, task = prepared(TrainConfig.from_options(arch=arch, data=str(walls), **small))
        assert task.few_sizes is few, arch


def test_scores_are_measured_in_full_float32() -> None:
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    try:
        with devices.full_float32():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cudnn.benchmark
        assert torch.get_float32_matmul_precision() == "high" and torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.benchmark = False


def test_one_copy_for_all_images_finds_the_same_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counts, queries = (3, 0, 7, 12), 10
    logits = torch.from_numpy(rng.normal(size=(len(counts), queries, 4)).astype(np.float32))
    boxes = torch.from_numpy(rng.uniform(0.2, 0.4, (len(counts), queries, 4)).astype(np.float32))
    targets = [
        Target(
            torch.from_numpy(rng.uniform(0.2, 0.4, (count, 4)).astype(np.float32)),
            torch.from_numpy(rng.integers(0, 3, count)),
        )
        for count in counts
    ]
    copies: list[torch.Size] = []
    cpu = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: (copies.append(tensor.shape), cpu(tensor))[1])
    matcher = Matcher()
    pairs = matcher(Predictions(logits, boxes), targets)
    assert copies == [torch.Size([queries * sum(counts)])]
    for row, (found, count) in enumerate(zip(pairs, counts, strict=True)):
        cost = matcher._cost(logits[row], boxes[row], targets[row])
        rows, columns = linear_sum_assignment(cost.numpy())
        assert found[0].tolist() == rows.tolist() and found[1].tolist() == columns.tolist()
        assert len(rows) == min(count, queries) and found[0].dtype == torch.int64
