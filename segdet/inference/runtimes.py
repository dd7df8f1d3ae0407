"""What runs an ONNX file: ONNX Runtime on a processor or an NVIDIA GPU (OpenVINO is in `openvino.py`).

What is asked for is what runs: a device that cannot be used is an `InputError` that names the library that is missing.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segdet.errors import InputError
from segdet.places import cache_folder, nameable

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_LONGEST = 300  # characters of another library's message
SAY = "say auto, cpu, cuda, cuda:N, tensorrt, openvino or openvino:f32"


class Runtime(Protocol):
    """An open model.

    inputs, outputs: name -> (ONNX Runtime's type name, number of dimensions). metadata: the file's metadata_props.
    device: what it runs on, in words. takes_threshold: whether the input `threshold` can be given.
    """

    inputs: dict[str, tuple[str, int]]
    outputs: dict[str, tuple[str, int]]
    metadata: dict[str, str]
    device: str
    takes_threshold: bool

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The named outputs for the given inputs."""


class OnnxRuntime:
    """A session of ONNX Runtime whose first provider is the one asked for."""

    def __init__(self, path: Path, kind: str, number: int, threads: int) -> None:
        runtime = import_onnxruntime()
        wanted = PROVIDERS[kind]
        if wanted not in runtime.get_available_providers():
            raise InputError(
                f"--device {kind}: this ONNX Runtime has no {wanted}; pip install 'segdet[gpu]', or use --device cpu"
            )
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        # Spinning threads cost a two-thread session seven times its speed as soon as one neighbour is busy.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if kind != "cpu" and hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()  # finds the CUDA libraries that came by pip
        providers = [PROVIDERS["cpu"]] if kind == "cpu" else [(wanted, _options(kind, number)), *_behind(kind, number)]
        try:
            with nameable(path) as name:
                self._session = runtime.InferenceSession(name, options, providers=providers)
        except Exception as error:  # ONNX Runtime's own exception classes have no common public base
            raise InputError(f"{path}: not an ONNX file that can be run ({short(error)})") from error
        running = self._session.get_providers()[0]
        if running != wanted:
            raise InputError(
                f"--device {kind}: {wanted} could not be started and {running} would run instead: "
                f"{missing_library(kind) or 'check the CUDA and cuDNN libraries of onnxruntime-gpu'}; or use --device cpu"
            )
        self.device = wanted
        self.inputs: dict[str, tuple[str, int]] = {
            entry.name: (entry.type, len(entry.shape)) for entry in self._session.get_inputs()
        }
        self.outputs: dict[str, tuple[str, int]] = {
            entry.name: (entry.type, len(entry.shape)) for entry in self._session.get_outputs()
        }
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.takes_threshold = any(e.name == "threshold" for e in self._session.get_overridable_initializers())
        self._number = number
        self._image: tuple[tuple[int, ...], Any] | None = None  # on a GPU: the last shape and its place in GPU memory
        self._lock = threading.Lock()

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        if self.device == PROVIDERS["cpu"]:
            return list(self._session.run(list(names), dict(feed)))
        with self._lock:
            return self._run_bound(names, feed)

    def _run_bound(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """With inputs placed in GPU memory by us, once for images of one shape: no allocation for each image."""
        value = import_onnxruntime().OrtValue
        image = np.ascontiguousarray(feed["image"])
        if self._image is None or self._image[0] != image.shape:
            self._image = image.shape, value.ortvalue_from_numpy(image, "cuda", self._number)
        else:
            self._image[1].update_inplace(image)
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("image", self._image[1])
        for name, array in feed.items():
            if name != "image":
                binding.bind_cpu_input(name, array)
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        return list(binding.copy_outputs_to_cpu())


def import_onnxruntime() -> Any:
    """ONNX Runtime.

    Raises:
        InputError: missing or damaged, with what to install.
    """
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


def missing_library(kind: str) -> str | None:
    """Why the GPU provider of ONNX Runtime cannot be loaded here, by loading it; None when it can."""
    if os.name != "posix":
        return None
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "libcuda.so.1 is missing: install the NVIDIA driver (in a container: run it with --gpus all)"
    folder = Path(import_onnxruntime().__file__).parent / "capi"
    provider = folder / f"libonnxruntime_providers_{kind}.so"
    if not provider.is_file():
        return f"{provider.name} is missing: pip install 'segdet[gpu]'"
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(provider))
    except OSError as error:  # "libcudnn.so.9: cannot open shared object file: No such file or directory"
        advice = "pip install tensorrt-cu13-libs" if "nvinfer" in str(error) else "pip install 'segdet[gpu]'"
        return f"{short(error)}; {advice}"
    return None


def has_nvidia() -> bool:
    """Whether an NVIDIA driver runs here."""
    return Path("/dev/nvidiactl").exists() or os.name == "nt"


def short(error: BaseException) -> str:
    """The first line of an error."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."


def _options(kind: str, number: int) -> dict[str, Any]:
    if kind == "cuda":  # exhaustive search would tune again for every new image size
        return {"device_id": number, "cudnn_conv_algo_search": "HEURISTIC"}
    folder = str(cache_folder() / "tensorrt")  # building an engine takes minutes
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError:  # without a cache, every start builds the engine again
        return {"device_id": number}
    return {
        "device_id": number,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": folder,
    }


def _behind(kind: str, number: int) -> list[Any]:
    """Providers for nodes that the first one does not know."""
    cuda = [(PROVIDERS["cuda"], _options("cuda", number))] if kind == "tensorrt" else []
    return [*cuda, PROVIDERS["cpu"]]
