"""What runs an ONNX file: ONNX Runtime on a processor or an NVIDIA GPU (OpenVINO is in `openvino.py`).

What is asked for is what runs: a device that cannot be used is an `InputError` that names the library that is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segdet.console import say
from segdet.errors import InputError, InvalidOption, SegdetError, setting
from segdet.files import sha256_of
from segdet.inference.backends import nvidia
from segdet.metadata import KEY, parse
from segdet.places import cache_folder, nameable

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
_LONGEST = 300  # characters of another library's message
_OF_DEVICE = re.compile(r"CUDA|CUDNN|CUBLAS|TensorRT|libcu|libnv", re.IGNORECASE)
_NO_MEMORY = re.compile(
    r"allocate memory|out of memory|bad_alloc|CUDA failure 2\b|_ALLOC_FAILED|OutOfMemory", re.IGNORECASE
)
# Errors after which every further call fails: a bad access, a failed launch, memory that cannot be corrected, a GPU that is gone.
_LOST = re.compile(r"CUDA failure (46|214|70\d|71\d|999)\b|illegal memory access|unspecified launch failure")
DEVICES = "auto, cpu, cuda, cuda:N, tensorrt, openvino or openvino:f32"


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


class OutOfMemory(SegdetError):
    """The device has no memory for one image of this size."""


class DeviceLost(SegdetError):
    """The GPU no longer answers this process; only a new process can use it again."""


class OnnxRuntime:
    """A session of ONNX Runtime whose first provider is the one that `kind` names."""

    def __init__(self, path: Path, kind: str, number: int, threads: int) -> None:
        runtime = import_onnxruntime()
        provider = PROVIDERS[kind]
        self._name = kind if not number else f"{kind}:{number}"
        if provider not in runtime.get_available_providers():
            hint = f"pip install 'segdet[gpu]', or use {setting('device', 'cpu')}"
            raise InvalidOption("device", self._name, f"this ONNX Runtime has no {provider}", hint)
        if kind != "cpu":
            nvidia.check(self._name, number)
        options = session_options(runtime, threads)
        self._session = self._opened(runtime, path, kind, number, options)
        self.device = provider
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
        self._most: dict[tuple[int, ...], int] = {}  # on a GPU: images of a size that fit at once, where that was tried
        self._lock = threading.Lock()

    def _opened(self, runtime: Any, path: Path, kind: str, number: int, options: Any) -> Any:
        """The session, running on the provider of `kind` and on no other."""
        try:
            with _quiet():  # without the fallback, which would print to stdout and start another provider
                if kind != "cpu" and hasattr(runtime, "preload_dlls"):
                    runtime.preload_dlls()  # the CUDA libraries that came by pip
                chain = provider_chain(kind, number, path)
                with nameable(path) as name:
                    session = runtime.InferenceSession(name, options, providers=chain, enable_fallback=0)
        except SegdetError:
            raise
        except Exception as error:  # ONNX Runtime's own exception classes have no common public base
            if kind != "cpu" and _OF_DEVICE.search(str(error)):
                reason = f"{PROVIDERS[kind]} cannot start ({short(error)})"
                raise InvalidOption("device", self._name, reason, missing_library(kind) or "") from error
            raise InputError(f"{path}: not an ONNX file that can be run ({short(error)})") from error
        running = session.get_providers()[0]
        if running != PROVIDERS[kind]:
            cause = missing_library(kind) or "check the CUDA and cuDNN libraries of onnxruntime-gpu"
            reason = f"{PROVIDERS[kind]} could not be started and {running} would run instead: {cause}"
            raise InvalidOption("device", self._name, reason, f"or use {setting('device', 'cpu')}")
        return session

    def run(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """As `Runtime.run`; on a GPU, images that do not fit into memory together run in parts.

        Raises:
            OutOfMemory: one image alone does not fit into GPU memory. DeviceLost: the GPU has failed.
        """
        if self.device == PROVIDERS["cpu"]:
            return list(self._session.run(list(names), dict(feed)))
        with self._lock:
            return self._run_in_parts(names, feed)

    def _run_in_parts(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        images = feed["image"]
        count, size = len(images), images.shape[1:]
        most = min(count, self._most.get(size, count))
        while True:
            try:
                rows = [slice(start, start + most) for start in range(0, count, most)]
                parts = [self._run_bound(names, {**feed, "image": images[part]}) for part in rows]
                return parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]
            except Exception as error:
                if _LOST.search(str(error)):
                    raise DeviceLost(
                        f"{self._name}: the GPU has failed ({short(error)}); start segdet again"
                    ) from error
                if not out_of_memory(error):
                    raise
            # Outside the handler: the error holds the frames, and they hold the memory.
            self._image = None
            if most == 1:
                hint = f"use {setting('tile')} or {setting('imgsz')} for smaller pieces, or {setting('device', 'cpu')}"
                raise OutOfMemory(f"{self._name}: not enough GPU memory for an image of {size[1]}x{size[0]}; {hint}")
            most = self._most[size] = (most + 1) // 2

    def _run_bound(self, names: Sequence[str], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """With inputs placed in GPU memory by us, once for images of one shape: no allocation for each image."""
        value = import_onnxruntime().OrtValue
        image = np.ascontiguousarray(feed["image"])
        if self._image is None or self._image[0] != image.shape:
            self._image = None  # frees the old place first
            self._image = image.shape, value.ortvalue_from_numpy(image, "cuda", self._number)
        else:
            self._image[1].update_inplace(image)  # returns once the copy is done, so the caller may change `image`
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("image", self._image[1])
        for name, array in feed.items():
            if name != "image":
                binding.bind_cpu_input(name, array)
        for name in names:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)  # returns once the outputs are there
        return list(binding.copy_outputs_to_cpu())


def session_options(runtime: Any, threads: int) -> Any:
    """Options of a session that runs beside other work."""
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    # Spinning threads cost a two-thread session seven times its speed as soon as one neighbour is busy.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def provider_chain(kind: str, number: int, path: Path) -> list[Any]:
    """Providers with their options: the one of `kind`, and those for nodes that it does not know.

    Args:
        kind: a key of `PROVIDERS`.
        number: of the GPU.
        path: the model; TensorRT keeps the engines it builds apart for each file.
    """
    # Exhaustive search would tune again for every new image size, memory would grow to the next power of two, and TF32
    # would give an fp32 file answers that its parity gate never saw: for speed there is the precision fp16.
    cuda = {
        "device_id": number,
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": 0,
    }
    chain: list[Any] = [PROVIDERS["cpu"]]
    if kind != "cpu":
        chain.insert(0, (PROVIDERS["cuda"], cuda))
    if kind == "tensorrt":
        chain.insert(0, (PROVIDERS["tensorrt"], _tensorrt_options(number, path)))
    return chain


def _tensorrt_options(number: int, path: Path) -> dict[str, Any]:
    """Engines take minutes to build, so they are kept; ONNX Runtime names them after the graph, not after its weights."""
    folder = cache_folder() / "tensorrt"
    engines = folder / sha256_of(path)[:24]
    engines.mkdir(parents=True, exist_ok=True)
    return {
        "device_id": number,
        "trt_engine_cache_enable": True,
        "trt_engine_cache_path": str(engines),
        "trt_timing_cache_enable": True,
        "trt_timing_cache_path": str(folder),
        "trt_fp16_enable": _stored_precision(path) == "fp16",  # TensorRT refuses halves in a graph otherwise
    }


def _stored_precision(path: Path) -> str | None:
    """The precision that an ONNX file says it has."""
    runtime = import_onnxruntime()
    options = session_options(runtime, 1)
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with nameable(path) as name:
        session = runtime.InferenceSession(name, options, providers=[PROVIDERS["cpu"]])
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    return None if text is None else parse(text, path).precision


def out_of_memory(error: Exception) -> bool:
    """Whether ONNX Runtime failed for want of memory, which it only says in words."""
    return isinstance(error, MemoryError) or bool(_NO_MEMORY.search(str(error)))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep stdout for results: ONNX Runtime prints there while it opens a session."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


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
    driver = nvidia.driver()
    if driver.fault:
        return driver.fault
    runtime = import_onnxruntime()
    if old := nvidia.too_old(getattr(runtime, "cuda_version", None) or "", driver):
        return f"onnxruntime-gpu is {old}, or install an older onnxruntime-gpu"
    folder = Path(runtime.__file__).parent / "capi"
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


def usable_gpu() -> bool:
    """Whether `auto` means a GPU: ONNX Runtime is built for it, and the driver has one. A broken driver is reported once."""
    if PROVIDERS["cuda"] not in import_onnxruntime().get_available_providers():
        return False
    here = nvidia.driver()
    if here.fault and nvidia.present():
        _report(f"the GPU is not used: {here.fault}")
    return not here.fault


@cache
def _report(line: str) -> None:
    say(line)


def short(error: BaseException) -> str:
    """The first line of an error."""
    line = (str(error) or type(error).__name__).splitlines()[0]
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
