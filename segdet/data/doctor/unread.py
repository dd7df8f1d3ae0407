"""Files of the dataset's folder that were not read and may belong to it."""

from __future__ import annotations

from collections.abc import Iterator

from segdet.data.doctor.findings import Case, Finding, Severity
from segdet.data.records import Account, Reason

# Files with a problem of their own and labels of another kind are findings already.
_SEVERITY: dict[Reason, Severity] = {
    "image-format": "warning",
    "label-orphan": "warning",
    "dead-end": "warning",
    "image-unlisted": "note",
    "archive": "note",
}
_ADVICE: dict[Reason, str] = {
    "image-format": "Convert them to JPEG or PNG, with their names, if they belong to the dataset.",
    "label-orphan": "Restore the images, or give images and labels the same name.",
    "dead-end": "Correct the links or the rights of the folders.",
    "image-unlisted": "They take no part. Add them to the lists or label them if they should.",
    "archive": "Unpack them if they belong to the dataset.",
}


def check(account: Account | None) -> Iterator[Finding]:
    """A finding for each reason, with the first files as examples."""
    for one in account.unread if account is not None else ():
        if one.reason in _SEVERITY:
            cases = tuple(Case((), name) for name in one.examples)
            title = f"not read: {one.what} ({one.count})"
            severity, advice = _SEVERITY[one.reason], _ADVICE[one.reason]
            yield Finding(f"files-{one.reason}", severity, title, advice, one.count, cases)
