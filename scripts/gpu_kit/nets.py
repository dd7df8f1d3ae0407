"""Networks, pictures and ONNX files that the parts share; what one part makes, the next one finds in the folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from gpu_kit.record import LeftOut
from segdet.data.catalog import cards
from segdet.data.records import Dataset, Instance, Record
from segdet.data.synthetic import cracks as synthetic
from segdet.metadata import DataSource, Metadata

HEADS = ("fcn", "unet", "deeplabv3", "deeplabv3plus", "segmenter", "dfine", "detr")
DETECTORS = ("dfine", "detr")
# Small enough for a processor; None is the architecture's own.
_SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("test_efficientnet", {"decoder_channels": [32, 24, 16, 12, 8]}),
    "segmenter": ("test_vit", {}),
    "dfine": ("test_efficientnet", {"size": "n"}),
    "detr": (
        "test_efficientnet",
        {"layers": 2, "width": 64, "feedforward": 128, "queries": 20, "frozen_norm": False},
    ),
}


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        sizes: (height, width) of the pictures that answers are compared on.
        speeds: (height, width) that are timed.
        batches: images at once in timings; `together` in comparisons.
        side: of training crops. pictures: drawn for training. steps: of training before comparing.
        seconds: of each timing. clients: of the server.
    """

    sizes: tuple[tuple[int, int], ...]
    speeds: tuple[tuple[int, int], ...]
    batches: tuple[int, ...]
    together: tuple[int, ...]
    side: int
    pictures: int
    steps: int
    batch: int
    seconds: float
    clients: tuple[int, ...]


FULL = Scale(
    sizes=((416, 416), (480, 640), (1080, 1920)), speeds=((416, 416), (640, 640), (1080, 1920)), batches=(1, 8, 32),
    together=(2, 8), side=320, pictures=256, steps=80, batch=16, seconds=0.6, clients=(1, 16, 64),
)  # fmt: skip
QUICK = Scale(
    sizes=((64, 64), (72, 96), (120, 160)), speeds=((64, 64), (96, 128)), batches=(1, 2), together=(2, 3), side=64,
    pictures=24, steps=16, batch=4, seconds=0.1, clients=(1, 4),
)  # fmt: skip


@dataclass
class Net:
    """A network in evaluation mode on the processor, and its description."""

    model: Any
    metadata: Metadata


class Workshop:
    """Makes what is asked for once and keeps it in `folder`.

    Args:
        folder: for data, weights and ONNX files.
        device: where networks are trained before they are compared.
        quick: small networks for a processor, instead of those that segdet trains.
        data: a dataset to use, or None for pictures drawn here.
    """

    def __init__(self, folder: Path, device: str, quick: bool, data: str | None) -> None:
        self.folder, self.device, self.quick, self.scale = folder, device, quick, QUICK if quick else FULL
        self._data = data
        self._pictures: list[Record] = []
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def data(self) -> str:
        """Name or folder of the training data."""
        if self._data is not None:
            return self._data
        root = self.folder / "drawn"
        if not root.is_dir():
            scale = self.scale
            val = max(4, scale.pictures // 8)
            synthetic.write(root, train=scale.pictures, val=val, test=0, size=max(64, scale.side), empty=0.0)
        return str(root)

    def dataset(self) -> Dataset:
        """The training data."""
        return cards.load(self.data)

    def options(self, arch: str, **more: Any) -> dict[str, Any]:
        """Settings of `segdet train` for a head."""
        options: dict[str, Any] = {
            "arch": arch, "data": self.data, "weights": "none", "imgsz": self.side(arch), "batch": self.scale.batch,
            "device": self.device, "logger": "none", "out": str(self.folder / "runs"), "ema": 0.9,
        }  # fmt: skip
        if self.quick:
            backbone, own = _SMALL.get(arch, ("test_efficientnet", {}))
            options |= {"backbone": backbone, "options": own, "workers": 0}
        return {**options, **more}

    def side(self, arch: str) -> int:
        """Side of the images that a head is trained on."""
        return 640 if arch in DETECTORS and not self.quick else self.scale.side

    def pictures(self) -> list[Record]:
        """One drawn and labelled picture of each size that answers are compared on; drawing large ones takes seconds."""
        if not self._pictures:
            self._pictures = [self._picture(number, *size) for number, size in enumerate(self.scale.sizes)]
        return self._pictures

    def _picture(self, number: int, height: int, width: int) -> Record:
        path = self.folder / f"picture-{height}x{width}.png"
        image, cracks = synthetic.draw(np.random.default_rng([7, number]), height, width)
        if not path.is_file():
            cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        instances = []
        for crack in cracks:
            points = np.concatenate(crack)
            (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            instances.append(Instance(0, tuple(crack), (x1, y1, x2, y2)))
        return Record(path, width, height, tuple(instances), path.stem)

    def net(self, arch: str) -> Net:
        """The network after a few steps of training, so that its answers are not those of noise.

        Where a package that training needs is missing, it is left as it starts.
        """
        from segdet.models import weights

        path = self.folder / f"{arch}.safetensors"
        if not path.is_file():
            try:
                network, metadata = self._trained(arch)
            except ModuleNotFoundError as error:
                network, metadata = self._untrained(arch, str(error.name))
            about = metadata.model_copy(update={"threshold": self._threshold(network, metadata)})
            weights.save(path, network.state_dict(), about)
        model, metadata = weights.load(path)
        return Net(model.eval(), metadata)

    def _trained(self, arch: str) -> tuple[Any, Metadata]:
        from gpu_kit.training import epochs, ready

        stepper, task, setup = ready(self.options(arch, precision="fp32"))
        for number, batch in zip(range(self.scale.steps), epochs(task), strict=False):
            stepper.step(batch, task.loss, 1.0, number)
        about = self._about(arch, setup.backbone, setup.config.arch_options, list(setup.dataset.classes), setup.imgsz)
        return stepper.best_network().eval(), about

    def _untrained(self, arch: str, missing: str) -> tuple[Any, Metadata]:
        import torch

        from segdet.models.registry import build_model

        options = self.options(arch)
        torch.manual_seed(0)
        network, backbone = build_model(
            arch, options.get("backbone"), ["crack"], "none", options.get("options"), options["imgsz"]
        )
        about = self._about(arch, backbone, options.get("options", {}), ["crack"], options["imgsz"])
        return network.to(self.device).eval(), about.model_copy(update={"metrics": {"untrained_without": missing}})

    @staticmethod
    def _about(arch: str, backbone: Any, options: dict[str, Any], classes: list[str], imgsz: int) -> Metadata:
        from segdet.models.registry import arch_named

        return Metadata(
            schema=1, task=arch_named(arch).task, arch=arch, backbone=backbone.name, options=options, classes=classes,
            imgsz=imgsz, mean=list(backbone.mean), std=list(backbone.std),
            data=DataSource(name="drawn", sha256="0" * 64), version="0",
        )  # fmt: skip

    def _threshold(self, network: Any, metadata: Metadata) -> float:
        """A threshold that some answers reach, however little the network has learnt: else there is nothing to compare."""
        import torch

        from segdet.models.common import predict
        from segdet.models.detector import Detector, detect

        image = cv2.cvtColor(cv2.imread(str(self.pictures()[0].image)), cv2.COLOR_BGR2RGB)
        with torch.inference_mode():
            if metadata.task == "detection":
                scores = detect(Detector(network, metadata.mean, metadata.std).eval(), image[None])[0][1]
                return float(np.clip(2 * scores[min(9, len(scores) - 1)], 1e-4, 0.5))
            if len(metadata.classes) > 1:
                return 0.5
            confidence = predict(network, torch.from_numpy(image)[None], metadata.mean, metadata.std)
        share = float((confidence >= 0.5).mean())
        return 0.5 if 0.01 <= share <= 0.5 else float(np.quantile(confidence, 0.9))

    def onnx(self, arch: str, precision: str = "fp32") -> Path:
        """The exported file; fp16 as `segdet export --precision fp16` makes it."""
        import onnx

        from segdet.contract import OPSET
        from segdet.exporting import half
        from segdet.exporting.onnx import to_onnx, write
        from segdet.exporting.ranges import measure

        path = self.folder / f"{arch}-{precision}.onnx"
        if not path.is_file():
            if precision != "fp32":
                self.onnx(arch)
            net = self.net(arch)
            about = net.metadata.model_copy(update={"opset": OPSET, "precision": precision})
            if precision == "fp32":
                proto = to_onnx(net.model, about)
            else:
                proto = onnx.load(self.onnx(arch))
                del proto.metadata_props[:]
                images = [cv2.imread(str(record.image))[..., ::-1] for record in self.pictures()[:2]]
                proto, _ = half.halved(proto, measure(proto, images, half.measured_tensors(proto)))
            write(proto, about, path)
        return path


def export(shop: Workshop, arch: str) -> None:
    """Make the ONNX files of a head; may run in a process of its own."""
    for precision in ("fp32", "fp16"):
        shop.onnx(arch, precision)


def provider(kind: str) -> None:
    """Check that ONNX Runtime has the provider of `kind` and finds its libraries.

    Raises:
        LeftOut: it has not.
    """
    import onnxruntime

    from segdet.inference.backends.onnxruntime import PROVIDERS, missing_library

    if PROVIDERS[kind] not in onnxruntime.get_available_providers():
        raise LeftOut(f"this ONNX Runtime has no {PROVIDERS[kind]} (install onnxruntime-gpu)")
    if kind != "cpu":
        if hasattr(onnxruntime, "preload_dlls"):
            onnxruntime.preload_dlls()
        if missing := missing_library(kind):
            raise LeftOut(f"{PROVIDERS[kind]} cannot start: {missing}")
