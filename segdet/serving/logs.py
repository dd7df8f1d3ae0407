"""One line a request on standard error: for people on a terminal, else JSON.

Lines go to `logging.getLogger("segdet.serving")`; `configure` prints them, and those of libraries, in one form.
"""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

LOGGER = logging.getLogger("segdet.serving")

_QUIET = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")  # asked every few seconds


def configure(kind: str) -> None:
    """Print the server's lines and the warnings of libraries.

    Args:
        kind: json, text, off, or auto: text on a terminal, else JSON lines.
    """
    LOGGER.handlers = [Lines(kind)]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False
    logging.captureWarnings(True)
    logging.getLogger().addHandler(Lines(kind, logging.WARNING))


def answered(fields: dict[str, Any]) -> None:
    """Log a request that was answered."""
    if fields["path"] in _QUIET and fields["status"] < 500:
        return
    level = logging.ERROR if fields["status"] >= 500 and fields["status"] != 503 else logging.INFO
    text = f"{fields['method']} {fields['path']} {fields['status']} {fields['ms']:.0f} ms [{fields['request_id']}]"
    _log(level, "request", text, fields)


def event(text: str, **fields: Any) -> None:
    """Log something that happened to the server itself."""
    _log(logging.INFO, "event", text, {"message": text, **fields})


def failed(request_id: str, error: BaseException) -> None:
    """Log an unexpected error with its traceback."""
    trace = "".join(traceback.format_exception(error))
    _log(logging.ERROR, "exception", f"[{request_id}] {trace}", {"request_id": request_id, "traceback": trace})


def _log(level: int, what: str, text: str, fields: dict[str, Any]) -> None:
    LOGGER.log(level, "%s", text, extra={"segdet_kind": what, "segdet_fields": fields})


class Lines(logging.Handler):
    """Prints log records of segdet and of libraries as lines of one form."""

    def __init__(self, kind: str = "auto", level: int = logging.NOTSET) -> None:
        super().__init__(level)
        self._kind = kind

    def emit(self, record: logging.LogRecord) -> None:
        if self._kind == "off":
            return
        text, fields = record.getMessage(), getattr(record, "segdet_fields", None)
        if fields is None:
            fields = {"logger": record.name, "message": text}
            text = f"{record.name}: {text}"
            if record.exc_info and record.exc_info[1]:
                fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
                text += "\n" + fields["traceback"]
        if self._kind == "text" or (self._kind == "auto" and sys.stderr.isatty()):
            line = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
        else:
            now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"
            about = {"time": now, "level": record.levelname.lower(), "kind": getattr(record, "segdet_kind", "library")}
            line = json.dumps({**about, **fields}, default=str)
        try:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        except (BrokenPipeError, ValueError):  # the reader of the log has gone; serving continues
            pass
