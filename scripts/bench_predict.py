"""File in, mask PNG out: segdet against a plain PyTorch + Pillow script of the same network, one image at a time.

    python scripts/bench_predict.py runs/unet-crack --onnx exports/unet-crack.onnx --data crack
    python scripts/bench_predict.py runs/unet-crack --onnx exports/unet-crack.onnx --onnx int8.onnx --size 1920x1080 --count 20

Every variant runs in a process of its own, all in turn and several times over, each with one thread for the network. CPU
time is user + system of the whole process, decoding and writing threads included; start-up (until the first image is on
disk) is reported apart. Sizes other than the images' own are cut from a mosaic of them. Then the masks are compared with
PyTorch's, and on the images' own size with the labels. With --large N, the peak memory of one N x N image is measured too.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder or weights, for PyTorch")
    parser.add_argument(
        "--onnx", type=Path, action="append", required=True, help="its exports; may be given several times"
    )
    parser.add_argument("--data", default="crack")
    parser.add_argument("--size", help="WIDTHxHEIGHT; the images' own when left out")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--large", type=int, help="also the peak memory of one image with this side")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        images, records = prepare(options.data, options.size, options.count, Path(folder) / "images")
        variants = {"PyTorch + Pillow": {"kind": "torch", "model": str(options.run)}}
        for file in options.onnx:
            for device in ("cpu", "openvino"):
                variants[f"{file.name}, {device}"] = {"kind": "segdet", "model": str(file), "device": device}
        rows: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
        for turn in range(options.rounds):
            names = list(variants)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                out = Path(folder) / "out" / name.replace("/", "-")
                job = {**variants[name], "images": [str(path) for path in images], "out": str(out)}
                rows[name].append(measure(job))
                print(f"round {turn + 1}: {name}: {rows[name][-1]}", file=sys.stderr, flush=True)
        print(table(rows, Path(folder) / "out", images, None if options.size else records))
        if options.large:
            print(f"\npeak memory of one {options.large}x{options.large} JPEG: {large(options, Path(folder)):.2f} GB")


def prepare(data: str, size: str | None, count: int, folder: Path) -> tuple[list[Path], list[Any]]:
    """The JPEG files to read, and their records."""
    from segdet.data.catalog import cards

    records = cards.load(data).splits["val"][:count]
    if size is None:
        return [record.image for record in records], records
    folder.mkdir()
    width, height = (int(side) for side in size.split("x"))
    paths = []
    for number, picture in enumerate(mosaics([record.image for record in records], width, height, count)):
        paths.append(folder / f"{number:04d}.jpg")
        Image.fromarray(picture).save(paths[-1], quality=92)
    return paths, records


def mosaics(files: Sequence[Path], width: int, height: int, count: int) -> Iterator[np.ndarray]:
    """Pictures of the given size laid out of real ones, each beginning with another."""
    pieces = [np.asarray(Image.open(file).convert("RGB")) for file in files[:40]]
    tall, wide = pieces[0].shape[:2]
    pieces = [piece for piece in pieces if piece.shape == pieces[0].shape]
    across, down = -(-width // wide), -(-height // tall)
    for number in range(count):
        rows = [
            np.concatenate([pieces[(7 * number + row * across + k) % len(pieces)] for k in range(across)], axis=1)
            for row in range(down)
        ]
        yield np.concatenate(rows)[:height, :width]


def measure(job: dict[str, Any]) -> dict[str, float]:
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    command = [sys.executable, __file__, "--child", json.dumps(job)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def child(job: dict[str, Any]) -> None:
    """One variant: prints CPU and wall milliseconds an image, those of start-up, and its peak memory."""
    if "core" in job:
        os.sched_setaffinity(0, {job["core"]})
    out = Path(job["out"])
    out.mkdir(parents=True, exist_ok=True)
    images = [Path(path) for path in job["images"]]
    run = {"torch": plain_torch, "segdet": with_segdet}[job["kind"]](job)
    run(images[:1], out)
    start_cpu, start_wall = cpu(), time.time() - started()
    clock = time.perf_counter()
    shares = run(images, out) or {}
    wall, used = time.perf_counter() - clock, cpu() - start_cpu
    row = {
        "cpu": 1000 * used / len(images),
        "wall": 1000 * wall / len(images),
        "start_cpu": start_cpu,
        "start_wall": start_wall,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        **shares,
    }
    print(json.dumps({key: round(value, 3) for key, value in row.items()}))


def plain_torch(job: dict[str, Any]) -> Callable[[Sequence[Path], Path], None]:
    """What one writes first: Pillow, a tensor, the model in eager float32, Pillow. A U-Net's decoder is smp's own."""
    import torch
    from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoderBlock

    from segdet.models import weights

    torch.set_num_threads(1)
    model, metadata = weights.load(weights.find(Path(job["model"])))
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (metadata.mean, metadata.std))
    model.eval()
    for block in model.modules():
        if isinstance(block, UnetDecoderBlock):
            block.__class__ = UnetDecoderBlock  # segdet computes it on smaller maps (models/upconv.py)

    def run(images: Sequence[Path], out: Path) -> None:
        with torch.inference_mode():
            for path in images:
                pixels = np.array(Image.open(path).convert("RGB"))
                batch = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 - mean) / std
                logits = model(batch)
                mask = logits[0, 0].sigmoid() >= metadata.threshold
                Image.fromarray(mask.numpy().astype(np.uint8)).save(out / f"{path.stem}_mask.png")

    return run


def with_segdet(job: dict[str, Any]) -> Callable[[Sequence[Path], Path], dict[str, float]]:
    """What `segdet predict --save mask` does; the share of post-processing and writing is measured in the same run."""
    from segdet.inference.batch import job as jobs
    from segdet.inference.io.sources import expand
    from segdet.inference.predict.predictor import open_predictor

    predictor = open_predictor(job["model"], tile="off", device=job["device"], threads=1)
    spent = {"post": 0.0}
    write = jobs.write_image

    def timed(*arguments: Any) -> Any:
        began = time.thread_time()
        try:
            return write(*arguments)
        finally:
            spent["post"] += time.thread_time() - began

    jobs.write_image = timed

    def run(images: Sequence[Path], out: Path) -> dict[str, float]:
        spent["post"] = 0.0
        jobs.run_job(predictor, expand([str(path) for path in images]), out, ("mask",))
        return {"post": 1000 * spent["post"] / len(images)}

    return run


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def started() -> float:
    """When this process began, in seconds since 1970."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    boot = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime"))
    return int(boot.split()[1]) + ticks / os.sysconf("SC_CLK_TCK")


def table(rows: dict[str, list[dict[str, float]]], out: Path, images: Sequence[Path], records: Any) -> str:
    """A Markdown table; ratios against the first row."""
    lines = [
        "| variant | CPU ms | wall ms | ratio CPU | ratio wall | after the network | start-up CPU s / wall s | GB "
        "| pixels that differ | IoU with PyTorch | IoU with labels |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    base: dict[str, float] = {}
    first = next(iter(rows))
    for name, measured in rows.items():
        row = {key: statistics.median(one[key] for one in measured) for key in measured[0]}
        base = base or row
        share = f"{row['post'] / row['cpu']:.1%}" if "post" in row else ""
        differ, iou = compare(out / first, out / name, images)
        truth = against_labels(out / name, records) if records else None
        lines.append(
            f"| {name} | {row['cpu']:.1f} | {row['wall']:.1f} | {base['cpu'] / row['cpu']:.2f} | {base['wall'] / row['wall']:.2f} "
            f"| {share} | {row['start_cpu']:.2f} / {row['start_wall']:.2f} | {row['memory']:.2f} "
            f"| {differ:.4%} | {iou:.4f} | {'' if truth is None else f'{truth:.4f}'} |"
        )
    return "\n".join(lines)


def read(folder: Path, image: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / f"{image.stem}_mask.png")) > 0


def compare(first: Path, second: Path, images: Sequence[Path]) -> tuple[float, float]:
    """Share of differing pixels and IoU, over all images."""
    pairs = [(read(first, image), read(second, image)) for image in images]
    differ = sum(int((a != b).sum()) for a, b in pairs) / sum(a.size for a, _ in pairs)
    both, either = (sum(int(join(a, b).sum()) for a, b in pairs) for join in (np.logical_and, np.logical_or))
    return differ, both / max(either, 1)


def against_labels(folder: Path, records: Sequence[Any]) -> float:
    from segdet.data.geometry import rasterize

    both = either = 0
    for record in records:
        truth, found = rasterize.binary(rasterize.foreground(record)), read(folder, record.image)
        both += int((truth & found).sum())
        either += int((truth | found).sum())
    return both / max(either, 1)


def large(options: argparse.Namespace, folder: Path) -> float:
    """GB at the peak of `segdet predict` on one picture of that side."""
    from segdet.data.catalog import cards

    files = [record.image for record in cards.load(options.data).splits["val"]]
    picture = folder / "large.jpg"
    Image.fromarray(next(mosaics(files, options.large, options.large, 1))).save(picture, quality=90)
    code = (
        "import resource, sys\nfrom segdet.cli.main import run\ncode = run(sys.argv[1:])\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\nsys.exit(code)"
    )
    command = [
        "predict",
        str(picture),
        "--model",
        str(options.onnx[0]),
        "--out",
        str(folder / "large"),
        "--device",
        "cpu",
    ]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_WAIT_POLICY": "PASSIVE"}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stderr.splitlines()[-1]) / 1e6


if __name__ == "__main__":
    main()
