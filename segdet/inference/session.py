"""One ONNX file of the contract (DESIGN 4), opened in ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from segdet.errors import InputError
from segdet.metadata import KEY, Metadata, parse

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}


# What a model of each task gives, in the order of `Session.run`.
_OUTPUTS = {
    "segmentation": {"mask": "tensor(uint8)", "confidence": "tensor(float)"},
    "detection": {"boxes": "tensor(float)", "scores": "tensor(float)", "labels": "tensor(int64)"},
}


class Session:
    """An open model. `run` maps uint8 images `[N, H, W, 3]` to the outputs of its task, as in DESIGN 4.

    Segmentation: mask uint8 and confidence float32, both `[N, H, W]`. Detection: boxes float32 `[N, Q, 4]` (x1, y1, x2, y2
    in pixels of the images), scores float32 `[N, Q]`, falling, and labels int64 `[N, Q]`.
    """

    def __init__(self, path: Path, session: Any, metadata: Metadata, device: str) -> None:
        self.path = path
        self.metadata = metadata
        self.device = device
        self._session = session
        self._has_threshold = any(entry.name == "threshold" for entry in session.get_overridable_initializers())

    def run(self, images: np.ndarray, threshold: float | None = None) -> tuple[np.ndarray, ...]:
        """Predict for RGB uint8 `[N, H, W, 3]`.

        Args:
            threshold: probability from which a pixel is foreground (segmentation of one class only); None = the stored one.
        """
        feed: dict[str, np.ndarray] = {"image": images}
        if threshold is not None:
            if not self._has_threshold:
                raise InputError(f"{self.path}: has several classes and no threshold to set; leave --conf out")
            feed["threshold"] = np.array(threshold, np.float32)
        return tuple(self._session.run(list(_OUTPUTS[self.metadata.task]), feed))


def open_session(path: Path, device: str = "auto", threads: int | None = None) -> Session:
    """Open an ONNX file that segdet exported.

    Args:
        device: auto, cpu, cuda, cuda:N or tensorrt. What is asked for is what runs, or it is an error.
        threads: of one inference (default: all cores).

    Raises:
        InputError: no such file, not ONNX, not one of ours, or a device that cannot be used.
    """
    runtime = _runtime()
    if not path.is_file():
        raise InputError(f"{path}: no such model file; `segdet export RUN` makes one")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or len(
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    # Spinning threads cost a two-thread session seven times its speed as soon as one neighbour is busy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers = _providers(runtime, device)
    try:
        session = runtime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # ONNX Runtime's own exception classes have no common public base
        raise InputError(f"{path}: not an ONNX file that can be run ({_short(error)})") from error
    metadata = parse(session.get_modelmeta().custom_metadata_map.get(KEY), path)
    _check_contract(session, metadata, path)
    wanted = providers[0][0] if isinstance(providers[0], tuple) else providers[0]
    if session.get_providers()[0] != wanted:
        raise InputError(
            f"--device {device}: {wanted} could not be started and {session.get_providers()[0]} would run instead; "
            "check the CUDA and cuDNN libraries of onnxruntime-gpu, or use --device cpu"
        )
    return Session(path, session, metadata, wanted)


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "ONNX Runtime is not installed: pip install 'segdet[cpu]', or 'segdet[gpu]' for NVIDIA"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise InputError(
            "ONNX Runtime is damaged (onnxruntime and onnxruntime-gpu overwrite each other): uninstall both, "
            "then install one: pip install 'segdet[cpu]' or 'segdet[gpu]'"
        )
    return onnxruntime


def _providers(runtime: Any, device: str) -> list[Any]:
    available = runtime.get_available_providers()
    if device == "auto":
        device = "cuda" if _PROVIDERS["cuda"] in available and _has_nvidia() else "cpu"
    kind, _, number = device.partition(":")
    if kind not in _PROVIDERS or (number and not number.isdigit()):
        raise InputError(f"--device {device}: say auto, cpu, cuda, cuda:N or tensorrt")
    if _PROVIDERS[kind] not in available:
        raise InputError(
            f"--device {device}: this ONNX Runtime has no {_PROVIDERS[kind]}; pip install 'segdet[gpu]', or use --device cpu"
        )
    if kind == "cpu":
        return [_PROVIDERS["cpu"]]
    if hasattr(runtime, "preload_dlls"):
        runtime.preload_dlls()  # finds the CUDA libraries that came by pip
    # Exhaustive search would tune again for every new image size.
    options = {"device_id": int(number or 0), **({"cudnn_conv_algo_search": "HEURISTIC"} if kind == "cuda" else {})}
    return [(_PROVIDERS[kind], options), _PROVIDERS["cpu"]]


def _has_nvidia() -> bool:
    return Path("/dev/nvidiactl").exists() or os.name == "nt"


def _check_contract(session: Any, metadata: Metadata, path: Path) -> None:
    inputs = {entry.name: (entry.type, len(entry.shape)) for entry in session.get_inputs()}
    outputs = {entry.name: entry.type for entry in session.get_outputs()}
    wanted = _OUTPUTS.get(metadata.task)
    if wanted is None:
        raise InputError(f"{path}: a {metadata.task} model, which this segdet cannot run; update segdet")
    if inputs.get("image") != ("tensor(uint8)", 4) or not wanted.items() <= outputs.items():
        raise InputError(f"{path}: its inputs or outputs are not those of the segdet contract; export it again")


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:160] if str(error) else type(error).__name__
