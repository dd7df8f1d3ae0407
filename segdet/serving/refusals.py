"""Requests that are not answered with a result, and why."""

from __future__ import annotations

from segdet.errors import ImageError, ImageTooLarge, InputError, InvalidOption


class Refused(Exception):
    """A request that is turned away.

    status: HTTP's. code: one word for machines and metrics. message: one sentence for people.
    retry_after: seconds after which trying again makes sense (503 only). field: the option that is wrong, or None.
    """

    def __init__(
        self, status: int, code: str, message: str, retry_after: int | None = None, field: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.field = field


def refusal(error: InputError) -> Refused:
    """The refusal that answers an error of the library, by the error's type.

    Args:
        error: what was raised.

    Returns:
        413 for an image with too many pixels, 400 for any other image that cannot be used, 422 for the value of an
        option, and 400 for everything else.
    """
    if isinstance(error, ImageTooLarge):
        return too_large(str(error))
    if isinstance(error, ImageError):
        return bad_request(str(error), "bad_image")
    if isinstance(error, InvalidOption):
        return bad_option(error.field, str(error))
    return bad_request(str(error))


def bad_request(message: str, code: str = "bad_request", field: str | None = None) -> Refused:
    """400."""
    return Refused(400, code, message, field=field)


def bad_option(field: str | None, message: str) -> Refused:
    """422: the value of the option `field`."""
    return Refused(422, "bad_option", message, field=field)


def too_large(message: str) -> Refused:
    """413."""
    return Refused(413, "too_large", message)


def overloaded(message: str, retry_after: float, code: str = "overloaded") -> Refused:
    """503 with Retry-After, in whole seconds as HTTP wants them."""
    return Refused(503, code, message, max(1, min(120, round(retry_after))))


def late(message: str) -> Refused:
    """504."""
    return Refused(504, "deadline", message)
