"""What this machine can do: versions, libraries, and devices that really run a model."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segdet import machine
from segdet.errors import SegdetError
from segdet.inference.backends import agreement, nvidia, onnxruntime, openvino
from segdet.places import cache_folder
from segdet.tools.probe import CHANNEL, probe_model
from segdet.version import __version__

GOOD, WARN, BAD = "ok", "warning", "problem"

# First version without a known hole: advisory ids of what it closed.
_HOLES = {
    "pillow": ("12.3.0", "CVE-2026-25990, CVE-2026-40192, CVE-2026-42309"),
    "torch": ("2.10.0", "CVE-2025-32434, CVE-2026-24747"),
    "onnx": ("1.21.0", "CVE-2025-51480, CVE-2026-27489, CVE-2026-34445"),
    "python-multipart": ("0.0.27", "CVE-2026-42561"),
}
_PACKAGES = (
    "numpy",
    "pillow",
    "opencv-python-headless",
    "tifffile",
    "imagecodecs",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "torch",
    "timm",
    "onnx",
    "fastapi",
    "python-multipart",
)
# The reason why PyTorch sees no GPU comes as a warning; what fails on a GPU shows in a product, whose sum is known.
_TORCH = """
import json, warnings
said = {"cuda": None, "cudnn": None, "gpus": [], "reason": ""}
try:
    import torch
    said["version"], said["cuda"] = torch.__version__, torch.version.cuda
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = torch.cuda.is_available()
    said["reason"] = next((str(w.message) for w in caught if "CUDA" in str(w.message)), "")
    for number in range(torch.cuda.device_count() if usable else 0):
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        if float((ones @ ones).sum()) != 64.0**3:
            raise RuntimeError(f"cuda:{number} multiplies wrongly")
        said["gpus"].append(torch.cuda.get_device_name(number))
        said["cudnn"] = torch.backends.cudnn.version()
except Exception as error:
    said["error"] = (str(error) or type(error).__name__).splitlines()[0]
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Check:
    """One line of the report. status: ok, warning or problem; advice: what to do, empty when nothing."""

    name: str
    status: str
    found: str
    advice: str = ""


def examine() -> list[Check]:
    """Look at everything; nothing is changed, nothing leaves the machine."""
    return [*_system(), *_packages(), *_torch(), *_nvidia(), *_devices()]


def to_dict(checks: list[Check]) -> dict[str, Any]:
    """For JSON output."""
    worst = next((s for s in (BAD, WARN) if any(check.status == s for check in checks)), GOOD)
    return {"segdet": __version__, "status": worst, "checks": [asdict(check) for check in checks]}


def _system() -> Iterator[Check]:
    yield Check("segdet", GOOD, f"{__version__} in {Path(__file__).parents[1]}")
    version = platform.python_version()
    fit = sys.version_info >= (3, 11)
    yield Check("python", GOOD if fit else BAD, f"{version} ({sys.executable})", "" if fit else "Python 3.11 or newer")
    usable = f"{machine.cores()} of {os.cpu_count()} cores usable"
    yield Check("processor", GOOD, f"{machine.processor()}, {usable}{_vectors()}")
    yield from _memory()
    for name, folder in (("disk here", Path.cwd()), ("disk of the cache", cache_folder())):
        yield _disk(name, folder)


def _vectors() -> str:
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        known = [
            name for name in ("amx_bf16", "avx512_bf16", "avx512_vnni", "avx2") if re.search(rf"\b{name}\b", flags)
        ]
        return f" ({', '.join(known)})" if known else ""
    return ""


def _memory() -> Iterator[Check]:
    with suppress(OSError, ValueError, AttributeError):
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = page * os.sysconf("SC_PHYS_PAGES") / 1e9, page * os.sysconf("SC_AVPHYS_PAGES") / 1e9
        low = total < 2
        yield Check(
            "memory",
            WARN if low else GOOD,
            f"{total:.1f} GB, {free:.1f} GB of it unused",
            "2 GB or more" if low else "",
        )


def _disk(name: str, folder: Path) -> Check:
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free / 1e9
    writable = os.access(there, os.W_OK)
    advice = "" if free >= 5 else "free some space: runs and datasets take gigabytes"
    if not writable:
        advice = "cannot be written; work in another folder (SEGDET_CACHE chooses the cache's)"
    return Check(name, GOOD if free >= 5 and writable else WARN, f"{folder}: {free:.0f} GB free", advice)


def _packages() -> Iterator[Check]:
    versions = {}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    yield Check("packages", GOOD, ", ".join(f"{name} {version}" for name, version in versions.items()))
    if {"onnxruntime", "onnxruntime-gpu"} <= set(versions):
        yield Check(
            "onnxruntime",
            BAD,
            "onnxruntime and onnxruntime-gpu overwrite each other's files",
            "uninstall both, then install one: pip install 'segdet[cpu]' or 'segdet[gpu]'",
        )
    elif not {"onnxruntime", "onnxruntime-gpu"} & set(versions):
        yield Check("onnxruntime", BAD, "not installed", "pip install 'segdet[cpu]', or 'segdet[gpu]' for NVIDIA")
    for name, (first, holes) in _HOLES.items():
        if name in versions and _number(versions[name]) < _number(first):
            yield Check(name, WARN, f"{versions[name]} has known holes ({holes})", f"pip install '{name}>={first}'")
    if "imagecodecs" not in versions:
        yield Check(
            "large TIFFs",
            GOOD,
            "those packed by LZW or JPEG cannot be read in windows",
            "pip install 'segdet[tiff]' if needed",
        )


def _torch() -> Iterator[Check]:
    """PyTorch, in a process of its own: prediction never imports it."""
    try:
        importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        why = "not installed; only training, val and export need it"
        yield Check("torch", GOOD, why, "pip install 'segdet[train]' if needed")
        return
    done, output = _output([sys.executable, "-c", _TORCH], 300)
    if not done:
        advice = "install it again: pip install 'segdet[train]'"
        yield Check("torch", BAD, f"cannot be used: {output}", advice)
        return
    said = json.loads(output.splitlines()[-1])
    if "error" in said:
        advice = "install a PyTorch that is built for this GPU and its driver: pip install 'segdet[train]'"
        yield Check("torch", BAD, f"cannot be used: {said['error'][:300]}", advice)
        return
    gpus = ", ".join(said["gpus"]) or "no GPU it can use"
    cuda = f"built for CUDA {said['cuda']}" if said["cuda"] else "built without CUDA"
    cudnn = f", cuDNN {said['cudnn']}" if said["cudnn"] else ""
    wrong = nvidia.present() and not said["gpus"]
    advice = ""
    if wrong:
        old = nvidia.too_old(said["cuda"] or "", nvidia.driver())
        reason = old or said["reason"].splitlines()[0][:200] if said["reason"] or old else ""
        advice = "there is an NVIDIA driver: install a PyTorch whose CUDA it supports" + (
            f" ({reason})" if reason else ""
        )
    yield Check("torch", WARN if wrong else GOOD, f"{said['version']}, {cuda}{cudnn}; {gpus}", advice)


def _output(command: list[str], seconds: float) -> tuple[bool, str]:
    """Whether a program ended well, and its output, or in one line why not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return False, f"no answer within {seconds:g} seconds"
    except OSError as error:
        return False, str(error)
    if done.returncode:
        lines = (done.stdout + done.stderr).strip().splitlines() or [f"ended with code {done.returncode}"]
        return False, lines[-1][:300]
    return True, done.stdout.strip()


def _nvidia() -> Iterator[Check]:
    name = "NVIDIA driver"
    here, tool = nvidia.driver(), shutil.which("nvidia-smi")
    if not nvidia.present() and tool is None:
        yield Check(name, GOOD, "none: no NVIDIA GPU is used")
        return
    listed = ""
    if tool is not None:  # it hangs when a GPU has fallen off the bus
        fields = "index,name,driver_version,memory.total,memory.used,mig.mode.current"
        query = f" --query-gpu={fields} --format=csv,noheader".split()
        done, listed = _output([tool, *query], 60)
        if not done:
            yield Check(name, BAD, f"nvidia-smi: {listed}", "install or reload the NVIDIA driver, or reboot")
            return
    if here.fault:
        yield Check(name, BAD, "; ".join(listed.splitlines()) or "there is a driver", here.fault)
        return
    usable = f"{here.count} usable here, CUDA {here.cuda[0]}.{here.cuda[1]}"
    about = f"{'; '.join(listed.splitlines())} ({usable})" if listed else f"{usable}; nvidia-smi is missing"
    sliced = ", Enabled" in listed
    advice = (
        "MIG is on: CUDA uses one instance a process; choose it with CUDA_VISIBLE_DEVICES=MIG-..." if sliced else ""
    )
    yield Check(name, GOOD, about, advice)


def _devices() -> Iterator[Check]:
    """Every device that could be asked for runs a tiny model, and its answer is checked."""
    with tempfile.TemporaryDirectory() as folder:
        model = probe_model(Path(folder) / "probe.onnx")
        with suppress(SegdetError):
            built_in = onnxruntime.import_onnxruntime().get_available_providers()
            for kind, provider in onnxruntime.PROVIDERS.items():
                if provider in built_in:
                    yield _runs(kind, lambda kind=kind: onnxruntime.OnnxRuntime(model, kind, 0, 1))  # type: ignore[misc]
                elif kind == "cuda" and nvidia.present():
                    advice = "pip uninstall onnxruntime; pip install 'segdet[gpu]'"
                    yield Check(
                        "device cuda",
                        WARN,
                        "there is an NVIDIA driver, but this ONNX Runtime is for processors",
                        advice,
                    )
        if agreement.installed():
            yield _runs("openvino", lambda: openvino.OpenVino(model, None, 1))
        else:
            advice = "pip install 'segdet[openvino]': often twice as fast on processors with bfloat16"
            yield Check("device openvino", GOOD, "not installed", advice)


def _runs(kind: str, open_runtime: Callable[[], onnxruntime.Runtime]) -> Check:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(1, 2, 3, 3)
    began = time.perf_counter()
    try:
        runtime = open_runtime()
        (answer,) = runtime.run(["mask"], {"image": image})
    except Exception as error:  # a driver or library may raise anything
        reason = onnxruntime.short(error)
        advice = onnxruntime.missing_library(kind) if kind in ("cuda", "tensorrt") else None
        bad = kind == "cpu" or (kind == "cuda" and nvidia.present())
        return Check(f"device {kind}", BAD if bad else WARN, f"does not run: {reason}", advice or "")
    if not (answer == image[..., CHANNEL]).all():
        return Check(f"device {kind}", BAD, f"{runtime.device} gives wrong answers", "use another device and report it")
    return Check(f"device {kind}", GOOD, f"{runtime.device} runs ({time.perf_counter() - began:.2f} s to start)")


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3])
