"""Requests that are not answered with a result, and why."""

from __future__ import annotations


class Refused(Exception):
    """A request that is turned away.

    status: HTTP's. code: one word for machines and metrics. message: one sentence for people.
    retry_after: seconds after which trying again makes sense (503 only).
    """

    def __init__(self, status: int, code: str, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after


def bad_request(message: str, code: str = "bad_request") -> Refused:
    """400."""
    return Refused(400, code, message)


def too_large(message: str) -> Refused:
    """413."""
    return Refused(413, "too_large", message)


def overloaded(message: str, retry_after: float, code: str = "overloaded") -> Refused:
    """503 with Retry-After, in whole seconds as HTTP wants them."""
    return Refused(503, code, message, max(1, min(120, round(retry_after))))


def late(message: str) -> Refused:
    """504."""
    return Refused(504, "deadline", message)
