"""segdet and its libraries write only into segdet's cache and the output folders, and contact nobody.

The commands run as real processes with an empty home folder, in a network namespace that has nothing but its own loopback.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from segdet import telemetry
from tests.conftest import ROOT, TINY
from tests.drawn import yolo_dataset

_COMMANDS = {
    "train": [
        "train",
        "unet",
        "--data",
        "walls",
        "--epochs",
        "1",
        "--limit",
        "4",
        "--workers",
        "0",
        "--config",
        "tiny.yaml",
    ],
    "export": ["export", "runs/unet-walls", "--limit", "4", "--tolerance", "1"],
    "val": ["val", "runs/unet-walls", "--limit", "2", "--workers", "0", "--report", "val.html"],
    "predict": ["predict", "walls/images/val", "--out", "predicted"],
    "bench": ["bench", "exports/unet-walls.onnx", "--device", "cpu", "--seconds", "0.1"],
    "data": ["data", "check", "walls"],
}

# Runs inside the namespace: argv[1] is the port, the rest is how to start segdet.
_SERVE = """
import fcntl, socket, struct, subprocess, sys, time, urllib.error, urllib.request
from collections.abc import Callable
from pathlib import Path
with socket.socket() as any_socket:  # a new namespace has its loopback switched off
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP | IFF_RUNNING
port, *start = sys.argv[1:]
server = subprocess.Popen([*start, "serve", "--model", "m=exports/unet-walls.onnx", "--port", port])
try:
    url = f"http://127.0.0.1:{port}"
    for attempt in range(600):
        try:
            urllib.request.urlopen(f"{url}/readyz", timeout=5)
            break
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, "the server ended"
            time.sleep(0.1)
    image = next(Path("walls/images/val").iterdir()).read_bytes()
    request = urllib.request.Request(f"{url}/v1/predict", image, {"Content-Type": "image/jpeg"})
    assert urllib.request.urlopen(request, timeout=60).status == 200
    time.sleep(1)
finally:
    server.terminate()
    server.wait(60)
"""


def _can_unshare() -> bool:
    command = shutil.which("unshare")
    return command is not None and subprocess.run([command, "-n", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not _can_unshare(), reason="network namespaces need root and Linux")
def test_nothing_is_written_elsewhere_and_nobody_is_contacted(tmp_path: Path) -> None:
    home, work, temporary = (tmp_path / name for name in ("home", "work", "temporary"))
    home.mkdir()
    temporary.mkdir()
    yolo_dataset(work / "walls", train=4, val=4)
    (work / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    segdet = [sys.executable, "-m", "segdet"]
    strace = _strace()
    for name, arguments in _COMMANDS.items():
        _run(["unshare", "-n", *strace(name), *segdet, *arguments], home, work)
    _run(["unshare", "-n", sys.executable, "-c", _SERVE, "8765", *strace("serve"), *segdet], home, work)

    assert _outside(home, home / ".cache/segdet") == []
    assert _outside(temporary) == []
    if not shutil.which("strace"):
        pytest.skip("nothing was left outside the cache; strace is missing, so connections were not watched")
    allowed = (home / ".cache/segdet", work, temporary)
    for name in (*_COMMANDS, "serve"):
        trace = (work / f"{name}.strace").read_text()
        assert _contacts(trace) == [], name
        assert [path for path in _created(trace, work) if not any(path.is_relative_to(p) for p in allowed)] == [], name


def _outside(folder: Path, allowed: Path | None = None) -> list[Path]:
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return [path for path in files if allowed is None or not path.is_relative_to(allowed)]


def _strace() -> Callable[[str], list[str]]:
    """How to start a command so that what it asks the kernel ends up in `<name>.strace`. -D: signals reach the command."""
    if not shutil.which("strace"):
        return lambda name: []
    calls = "trace=connect,sendto,sendmsg,sendmmsg,openat,creat"
    return lambda name: [
        "strace",
        "-D",
        "-f",
        "-qq",
        "--seccomp-bpf",
        "-s",
        "4096",
        "-e",
        calls,
        "-o",
        f"{name}.strace",
    ]


def _contacts(trace: str) -> list[str]:
    """Lines of a trace that name an address of a network; local sockets are none. A name server's address counts, too."""
    lines = [line for line in trace.splitlines() if re.search(r"sa_family=AF_INET6?\b", line)]
    return [line[:200] for line in lines if "connect(" in line or "send" in line]


def _created(trace: str, work: Path) -> list[Path]:
    """Files that a traced process started in `work` created or tried to create; devices and `/proc` are none."""
    asked = re.findall(r'(?:openat\(AT_FDCWD, |creat\()"([^"]+)", (?:0|[^)]*O_CREAT)', trace)
    files = {work / path for path in asked}
    return sorted(path for path in files if path.parts[1] not in ("dev", "proc"))


def _run(command: list[str], home: Path, work: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in telemetry.OFF}
    for name in ("SEGDET_CACHE", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "HF_HOME"):
        kept.pop(name, None)
    environment = {**kept, "HOME": str(home), "TMPDIR": str(home.parent / "temporary"), "PYTHONPATH": str(ROOT)}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_contacts_are_recognised() -> None:
    local = 'connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT'
    name_server = (
        'connect(4, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("10.0.0.2")}, 16) = -1 ENETUNREACH'
    )
    packet = 'sendto(4, "x", 1, 0, {sa_family=AF_INET6, sin6_port=htons(443)}, 28) = 1'
    assert _contacts(f"{local}\n{name_server}\n{packet}") == [name_server, packet]


def test_created_files_are_recognised(tmp_path: Path) -> None:
    trace = (
        '1 openat(AT_FDCWD, "/root/.config/id", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 3\n'
        '1 openat(AT_FDCWD, "out.png", O_RDWR|O_CREAT|O_EXCL, 0600 <unfinished ...>\n'
        '1 openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC) = 3\n'
        '1 openat(AT_FDCWD, "/dev/shm/sem.x", O_RDWR|O_CREAT, 0600) = 3\n'
        '1 creat("/var/old", 0600) = 3\n'
    )
    assert _created(trace, tmp_path) == sorted([Path("/root/.config/id"), tmp_path / "out.png", Path("/var/old")])


def test_telemetry_is_off_before_a_library_is_imported() -> None:
    code = f"import os, segdet; print([os.environ.get(name) for name in {list(telemetry.OFF)!r}])"
    clean = {name: value for name, value in os.environ.items() if name not in telemetry.OFF}
    for environment, expected in (
        (clean, list(telemetry.OFF.values())),
        ({**clean, **dict.fromkeys(telemetry.OFF, "mine")}, ["mine"] * len(telemetry.OFF)),
    ):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(expected)


def test_what_is_deployed_switches_telemetry_off() -> None:
    for file in ("deploy/Dockerfile", "deploy/ray_serve.py", "deploy/kserve.yaml", "README.md"):
        assert "ORT_DISABLE_TELEMETRY" in (ROOT / file).read_text(), file
    assert "RAY_USAGE_STATS_ENABLED" in (ROOT / "deploy/ray_serve.py").read_text()
