"""Getting a file over HTTP so that a broken transfer goes on where it stopped, and unpacking archives from strangers."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import stat
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path, PurePosixPath
from typing import Any

from segdet.errors import InputError
from segdet.version import __version__

Progress = Callable[[int, int | None], object]

_CHUNK = 1 << 18
_TIMEOUT = 30.0  # seconds without a byte
_ATTEMPTS = 5  # in a row without any progress
_FIRST = 3  # when nothing has arrived at all: there may be no network
_PATIENCE = 60.0  # seconds waited at most because a busy server asks for it
_LASTING = (400, 401, 403, 404, 410, 451)  # answers that another attempt will not change
_MOST_FILES = 2_000_000
_MOST_BYTES = 300 << 30
_RATIO = 100  # unpacked over packed; photographs hardly shrink, labels about tenfold


class FetchError(InputError):
    """A transfer that failed for good. `status` is the server's answer, None when there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


def shown(url: str) -> str:
    """A URL without its query, which may hold a key."""
    parts = urllib.parse.urlsplit(url)
    return urllib.parse.urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))


def fetch(
    url: str, path: Path, sha256: str | None = None, progress: Progress = lambda done, total: None, pause: float = 1.0
) -> None:
    """Download `url` to `path`; what arrived is kept in `<path>.part`, and a later call goes on from there.

    A server that cannot resume, or whose file has changed since (ETag, Last-Modified), is asked for the whole again.

    Args:
        progress: called with (bytes so far, bytes in all or None).
        pause: seconds before the second attempt, doubled before each further one.

    Raises:
        FetchError: the server refuses, or cannot be reached several times in a row. InputError: wrong checksum.
    """
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise FetchError(f"{shown(url)}: only http and https are fetched")
    transfer = _Transfer(url, path, progress)
    failures, farthest = 0, transfer.size()
    while not (path.exists() and not transfer.part.exists()):
        asked = 0.0  # seconds that the server asks us to wait
        try:
            if transfer.attempt():
                transfer.finish(sha256)
                return
            reason = "the transfer broke off"
        except urllib.error.HTTPError as error:
            if error.code in _LASTING:
                raise FetchError(f"{shown(url)}: the server answers {error.code} {error.reason}", error.code) from None
            reason, asked = f"the server answers {error.code} {error.reason}", _retry_after(error.headers)
        except (OSError, http.client.HTTPException) as error:  # also what breaks while bytes arrive, encrypted or not
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        failures = 1 if transfer.size() > farthest else failures + 1
        farthest = max(farthest, transfer.size())
        if failures >= (_ATTEMPTS if farthest else _FIRST):
            raise FetchError(f"{shown(url)}: {reason}") from None
        time.sleep(max(pause * 2 ** (failures - 1), min(asked, _PATIENCE)))


def _retry_after(headers: Message | None) -> float:
    """Seconds from a Retry-After header; 0 without one, or where it names a date."""
    text = (headers.get("Retry-After") if headers is not None else None) or ""
    return float(text) if text.isascii() and text.isdigit() else 0.0


def get_json(url: str) -> Any:
    """A small JSON answer.

    Raises:
        FetchError: no answer, a refusal, or no JSON; the URL's query is never shown.
    """
    try:
        with _OPENER.open(_request(url), timeout=_TIMEOUT) as answer:
            return json.loads(answer.read(1 << 20))
    except urllib.error.HTTPError as error:
        raise FetchError(f"{shown(url)}: the server answers {error.code} {error.reason}", error.code) from None
    except (OSError, http.client.HTTPException) as error:
        raise FetchError(f"{shown(url)}: {getattr(error, 'reason', None) or type(error).__name__}") from None
    except ValueError:
        raise FetchError(f"{shown(url)}: the answer is not JSON") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Redirects to the web only (urllib would follow them to FTP too)."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urllib.parse.urlsplit(newurl).scheme not in ("http", "https"):
            raise FetchError(f"{shown(req.full_url)}: leads to {shown(newurl)}; only http and https are fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_OPENER = urllib.request.build_opener(_Redirects)


class _Transfer:
    """One file on its way: `<path>.part` holds what arrived, `<path>.from` what it is a part of."""

    def __init__(self, url: str, path: Path, progress: Progress) -> None:
        self.url, self.path, self.progress = url, path, progress
        self.part = path.with_name(f"{path.name}.part")
        self.origin = path.with_name(f"{path.name}.from")

    def size(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def attempt(self) -> bool:
        """Ask for what is missing; True when the file is complete."""
        mark = self._mark()
        if mark is None:  # nothing to tell whether the file is still the same
            self.part.unlink(missing_ok=True)
        offset = self.size()
        headers = {"Range": f"bytes={offset}-", "If-Range": mark} if offset and mark else {}
        try:
            with _OPENER.open(_request(self.url, headers), timeout=_TIMEOUT) as answer:
                return self._receive(answer, offset, mark)
        except urllib.error.HTTPError as error:
            if error.code != 416:
                raise
            if error.headers.get("Content-Range") == f"bytes */{offset}" and _mark_of(error.headers) in (None, mark):
                return True  # it was all there
            self.part.unlink(missing_ok=True)
            return False

    def _receive(self, answer: Any, offset: int, mark: str | None) -> bool:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range") or "")
        goes_on = answer.status == 206 and span is not None and int(span[1]) == offset
        if offset and goes_on and _mark_of(answer.headers) not in (None, mark):
            self.part.unlink()
            return False
        length = answer.headers.get("Content-Length") or ""
        total = int(length) if length.isascii() and length.isdigit() else None
        if goes_on and span is not None:
            total = int(span[2]) if span[2] != "*" else None
        done = offset if goes_on else 0
        with self._writing():
            self.origin.write_text(json.dumps({"url": self.url, "mark": _mark_of(answer.headers)}), encoding="utf-8")
            file = self.part.open("ab" if goes_on else "wb")
        with file:
            while chunk := answer.read(_CHUNK):
                with self._writing():
                    file.write(chunk)
                done += len(chunk)
                self.progress(done, total)
        return total is None or done == total

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A full disk is no fault of the network: another attempt would not help."""
        try:
            yield
        except OSError as error:
            raise InputError(
                f"{self.part}: cannot be written ({error.strerror}); make room, then run it again"
            ) from error

    def _mark(self) -> str | None:
        """What the server called the version that the part belongs to; None without a part of this URL."""
        try:
            origin = json.loads(self.origin.read_text(encoding="utf-8"))
            mark = origin["mark"] if _same(origin["url"], self.url) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return mark if isinstance(mark, str) else None

    def finish(self, sha256: str | None) -> None:
        if sha256 is not None:
            with self.part.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != sha256:
                self.part.unlink()
                self.origin.unlink(missing_ok=True)
                raise InputError(
                    f"{shown(self.url)}: its SHA-256 is {found}, but the card says {sha256}; it was changed or damaged on "
                    "the way and has been removed"
                )
        self.part.replace(self.path)
        self.origin.unlink(missing_ok=True)


def _same(a: str, b: str) -> bool:
    """The same file, though signed links differ in their query each time."""
    return shown(a) == shown(b)


def _request(url: str, headers: dict[str, str] | None = None) -> urllib.request.Request:
    agent = {"User-Agent": f"segdet/{__version__}", "Accept-Encoding": "identity"}
    return urllib.request.Request(url, headers={**agent, **(headers or {})})


def _mark_of(headers: Message) -> str | None:
    """A strong ETag, else the time of the last change: what If-Range accepts (RFC 9110, 13.1.5)."""
    tag = headers.get("ETag")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified")


def unpack(archive: Path, folder: Path, strip: bool = False) -> int:
    """Unpack a ZIP archive into an existing folder and return the number of files.

    Args:
        strip: leave out the one folder that holds everything, where there is one.

    Raises:
        InputError: damaged, encrypted, or made to harm: names that lead out of the folder, links, or contents far
            larger than the archive. Nothing is written outside `folder`; the caller removes what is inside.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _checked(opened, archive)
            tops = {PurePosixPath(member.filename).parts[0] for member in members}
            nested = all(len(PurePosixPath(member.filename).parts) > 1 for member in members)
            skip = 1 if strip and nested and len(tops) == 1 else 0
            for member in members:
                target = folder.joinpath(*PurePosixPath(member.filename).parts[skip:])
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, target.open("xb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
            return len(members)
    except FileExistsError as error:
        raise InputError(f"{archive.name}: names {error.filename} twice; not unpacked") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        with archive.open("rb") as file:
            page = file.read(256).lstrip().lower().startswith((b"<!doctype", b"<html"))
        if page:  # a login page, or that of a network that wants to be agreed with first
            raise InputError(
                f"{archive.name}: a web page, not an archive; open the link in a browser to see why"
            ) from None
        raise InputError(f"{archive.name}: damaged archive ({error}); download it again") from error
    except OSError as error:
        raise InputError(f"{folder}: cannot unpack there ({error.strerror})") from error


def _checked(opened: zipfile.ZipFile, archive: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive, once all of them are known to be harmless."""
    members = []
    for member in opened.infolist():
        name = PurePosixPath(member.filename)
        odd = "\\" in member.filename or "\0" in member.filename or re.match(r"[A-Za-z]:", member.filename)
        if name.is_absolute() or ".." in name.parts or odd or (not name.parts and not member.is_dir()):
            raise InputError(f"{archive.name}: holds {member.filename!r}, which leads out of its folder; not unpacked")
        mode = member.external_attr >> 16
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InputError(f"{archive.name}: holds {member.filename!r}, a link or device; not unpacked")
        if member.flag_bits & 1:
            raise InputError(f"{archive.name}: is encrypted; unpack it by hand")
        if not member.is_dir() and name.parts[0] != "__MACOSX" and name.name != ".DS_Store":
            members.append(member)
    size = sum(member.file_size for member in members)
    packed = max(archive.stat().st_size, 1 << 20)
    if len(members) > _MOST_FILES or size > _MOST_BYTES or size > _RATIO * packed:
        raise InputError(f"{archive.name}: would unpack to {len(members)} files of {size >> 20} MB; not unpacked")
    free = shutil.disk_usage(archive.parent).free
    if size > free:
        raise InputError(f"{archive.name}: needs {size >> 20} MB unpacked, {free >> 20} MB are free; make room")
    if not members:
        raise InputError(f"{archive.name}: an empty archive")
    return members
