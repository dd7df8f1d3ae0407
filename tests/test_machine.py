"""What a process knows of its machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from segdet import machine, provenance
from segdet.data.loading.loader import default_workers

_SCRIPT = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
from segdet import machine
print(machine.cores())
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_only_cores_that_may_be_used_count() -> None:
    done = subprocess.run([sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_everybody_counts_the_same_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(5)), raising=False)
    assert machine.cores() == 5 and default_workers() == 4
    assert provenance.here()["machine"].endswith(f", {machine.processor()}, 5 cores")


def test_the_processor_has_a_name() -> None:
    assert machine.processor() and "\n" not in machine.processor()
