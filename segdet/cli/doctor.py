"""`segdet doctor`"""

from __future__ import annotations

import typer

from segdet.cli import output

_SIGNS = {"ok": "ok", "warning": "!", "problem": "PROBLEM"}


def doctor() -> None:
    """Check this machine: versions, GPU, drivers, and which devices really run a model. Exit code 1 on a problem."""
    from segdet.tools.environment import BAD, examine, to_dict

    checks = examine()
    lines = []
    for check in checks:
        lines.append(f"{_SIGNS[check.status]:8s}{check.name}: {check.found}")
        if check.advice:
            lines.append(f"{'':8s}  -> {check.advice}")
    output.emit(to_dict(checks), "\n".join(lines))
    if any(check.status == BAD for check in checks):
        raise typer.Exit(1)
