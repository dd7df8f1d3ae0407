"""One line a request on standard error: for people on a terminal, else JSON."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from typing import Any

_QUIET = ("/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready")  # asked every few seconds

kind = "auto"  # auto, json, text or off; set once at the start


def answered(fields: dict[str, Any]) -> None:
    """A request that was answered."""
    if fields["path"] in _QUIET and fields["status"] < 500:
        return
    level = "error" if fields["status"] >= 500 and fields["status"] != 503 else "info"
    text = f"{fields['method']} {fields['path']} {fields['status']} {fields['ms']:.0f} ms [{fields['request_id']}]"
    _write(level, "request", text, fields)


def event(text: str, **fields: Any) -> None:
    """Something that happened to the server itself."""
    _write("info", "event", text, {"message": text, **fields})


def failed(request_id: str, error: BaseException) -> None:
    """An unexpected error, with its traceback."""
    trace = "".join(traceback.format_exception(error))
    _write("error", "exception", f"[{request_id}] {trace}", {"request_id": request_id, "traceback": trace})


class FromLibraries(logging.Handler):
    """What libraries say through Python's logging, as lines of this log."""

    def emit(self, record: logging.LogRecord) -> None:
        fields = {"logger": record.name, "message": record.getMessage()}
        if record.exc_info and record.exc_info[1]:
            fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        text = "\n".join([f"{record.name}: {fields['message']}", *filter(None, [fields.get("traceback")])])
        _write(record.levelname.lower(), "library", text, fields)


def _write(level: str, what: str, text: str, fields: dict[str, Any]) -> None:
    if kind == "off":
        return
    as_text = kind == "text" or (kind == "auto" and sys.stderr.isatty())
    if as_text:
        line = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)
    else:
        now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{int(time.time() * 1000) % 1000:03d}Z"
        line = json.dumps({"time": now, "level": level, "kind": what, **fields}, default=str)
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (BrokenPipeError, ValueError):  # whoever read the log has gone; serving goes on
        pass
