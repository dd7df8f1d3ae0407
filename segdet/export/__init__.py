"""ONNX files that provably agree with the model they came from.

The room's name is also the verb of the public API, `segdet.export(run)`, so this module can be called.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _Export(ModuleType):
    def __call__(self, source: str | Path, **options: Any) -> Path:
        """Export a run or weights file to ONNX and return the file; options are those of `export.job.export`."""
        from segdet.export.job import export

        return export(source, **options)


sys.modules[__name__].__class__ = _Export
