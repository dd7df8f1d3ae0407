"""Training speed: segdet against a plain script, in turn, on real images.

    python scripts/bench_train.py --data crack --rounds 5 --steps 12

The plain script is what people write first: segmentation-models-pytorch's U-Net on the same backbone, float32, PIL for decoding
and drawing polygons, random flips in numpy, two loader workers, Adam, Dice + BCE. Both see batches of the same size. Rounds
alternate, so that a busy neighbour hits both; wall and processor time (of the process and its workers) are both given,
ratios are medians of the ratios of each round. Each has a process of its own, in which it waits while the other works: segdet
tells the allocator to keep freed memory, which in one process the plain script would have for nothing (`--together` does that).
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
import segmentation_models_pytorch as smp
import torch
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, Dataset

from segdet.data.catalog import cards
from segdet.data.records import Record
from segdet.training.config import TrainConfig
from segdet.training.run import prepared
from segdet.training.stepper import Stepper

# segdet's (timm's) name of the backbone -> smp's name of the same network.
BACKBONES = {
    "efficientnet_lite0": "tu-tf_efficientnet_lite0",
    "resnet34": "resnet34",
    "mobilenetv2_100": "mobilenet_v2",
}


class Plain(Dataset[Any]):
    """PIL decoding, PIL polygons, a random crop and flips, float32 tensors."""

    def __init__(self, records: list[Record], side: int) -> None:
        self.records, self.side = records, side

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        record = self.records[index]
        image = Image.open(record.image).convert("RGB")
        mask = Image.new("L", image.size)
        draw = ImageDraw.Draw(mask)
        for instance in record.instances:
            for polygon in instance.polygons:
                draw.polygon([tuple(point) for point in polygon.tolist()], fill=255)
        x, y = (int(torch.randint(0, max(1, length - self.side + 1), ())) for length in image.size)
        box = (x, y, x + self.side, y + self.side)
        pixels, target = np.asarray(image.crop(box)), np.asarray(mask.crop(box))
        if torch.rand(()) < 0.5:
            pixels, target = pixels[:, ::-1], target[:, ::-1]
        normal = (pixels.astype(np.float32) / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
        return torch.from_numpy(normal.transpose(2, 0, 1).astype(np.float32)), torch.from_numpy(
            target.astype(np.float32) / 255
        )


def plain_steps(records: list[Record], backbone: str, side: int, batch: int) -> Iterator[None]:
    """One training step for every `next`."""
    model = smp.Unet(BACKBONES[backbone], encoder_weights=None)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    bce, dice = torch.nn.BCEWithLogitsLoss(), smp.losses.DiceLoss("binary")
    data = DataLoader(Plain(records, side), batch, shuffle=True, num_workers=2, drop_last=True, persistent_workers=True)
    model.train()
    while True:
        for images, masks in data:
            logits = model(images)
            loss = bce(logits[:, 0], masks) + dice(logits, masks[:, None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            yield


class Ours:
    """One training step of segdet for every `next`, and the share of time it waits for data."""

    def __init__(
        self, data: str, backbone: str, side: int, batch: int, precision: str, options: dict[str, Any] | None = None
    ) -> None:
        given = {"arch": "unet", "data": data, "backbone": backbone, "weights": "none", "imgsz": side, "batch": batch}
        self.setup, self.task = prepared(TrainConfig.from_options(**given, precision=precision, options=options or {}))
        self.stepper, self.waited = Stepper(self.setup), 0.0

    def steps(self) -> Iterator[None]:
        number = 0
        while True:
            self.stepper.start_epoch(0)
            last = time.perf_counter()
            for batch in self.task.train:
                self.waited += time.perf_counter() - last
                self.stepper.step(batch, self.task.loss, 1.0, number)
                number += 1
                yield
                last = time.perf_counter()
            self.task.plan.epoch += 1


def started(name: str, asked: argparse.Namespace, backbone: str) -> Callable[[int], tuple[float, float, float]]:
    """A script warmed up by three steps; called with a number of steps it tells their (wall, processor, waiting) seconds."""
    ours = Ours(asked.data, backbone, asked.imgsz, asked.batch, asked.precision) if name == "segdet" else None
    if ours is None:
        records = list(cards.load(asked.data).splits["train"])
        run = plain_steps(records, backbone, asked.imgsz, asked.batch)
    else:
        run = ours.steps()
    for _ in range(3):
        next(run)

    def timed(count: int) -> tuple[float, float, float]:
        wall, cpu, waited = time.perf_counter(), cpu_seconds(), ours.waited if ours else 0.0
        for _ in range(count):
            next(run)
        return time.perf_counter() - wall, cpu_seconds() - cpu, (ours.waited if ours else 0.0) - waited

    return timed


def work(name: str, asked: argparse.Namespace, backbone: str, pipe: Connection) -> None:
    """In a process of its own: answer every number of steps that comes through the pipe, until it is 0."""
    timed = started(name, asked, backbone)
    pipe.send("ready")
    while count := pipe.recv():
        pipe.send(timed(count))


def elsewhere(name: str, asked: argparse.Namespace, backbone: str) -> Connection:
    """As `started`, in a new process; numbers of steps go in, seconds come out."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=work, args=(name, asked, backbone, there)).start()
    there.close()
    here.recv()
    return here


def cpu_seconds() -> float:
    """Processor time of this process and its workers so far."""
    process = psutil.Process()
    return sum(sum(p.cpu_times()[:2]) for p in (process, *process.children(recursive=True)))


def compared(asked: argparse.Namespace, backbone: str) -> str:
    """A row of the table."""
    names = ("segdet", "plain")
    runs: dict[str, Callable[[int], tuple[float, float, float]]] = {}
    pipes: list[Connection] = []
    for name in names:
        if asked.together:
            runs[name] = started(name, asked, backbone)
            continue
        pipes.append(pipe := elsewhere(name, asked, backbone))
        runs[name] = lambda count, pipe=pipe: (pipe.send(count), pipe.recv())[1]  # type: ignore[misc]
    rounds: list[dict[str, tuple[float, float, float]]] = []
    for number in range(asked.rounds):
        rounds.append({name: runs[name](asked.steps) for name in names[:: 1 if number % 2 else -1]})
    for pipe in pipes:
        pipe.send(0)
    images = asked.batch * asked.steps
    speed = {name: images / statistics.median(each[name][0] for each in rounds) for name in names}
    wall, cpu = (statistics.median(each["plain"][k] / each["segdet"][k] for each in rounds) for k in (0, 1))
    waiting = sum(each["segdet"][2] for each in rounds) / sum(each["segdet"][0] for each in rounds)
    return f"| {backbone} | {speed['plain']:.1f} | {speed['segdet']:.1f} | {wall:.2f} | {cpu:.2f} | {waiting:.1%} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="crack")
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=BACKBONES)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--precision", default="auto")
    parser.add_argument(
        "--together", action="store_true", help="both in this process, with the same allocator settings"
    )
    asked = parser.parse_args()
    print(
        "| backbone | plain img/s | segdet img/s | ratio, wall | ratio, processor | waiting for data |\n|---|---|---|---|---|---|"
    )
    for backbone in asked.backbones:
        print(compared(asked, backbone), flush=True)


if __name__ == "__main__":
    main()
