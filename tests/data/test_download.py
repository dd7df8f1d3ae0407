"""Downloads against a server of our own that breaks off, lies, refuses and changes its mind; and archives made to harm."""

from __future__ import annotations

import hashlib
import io
import json
import re
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from segdet.data.catalog import cards as catalog
from segdet.data.catalog import download, http
from segdet.errors import InputError
from tests.conftest import Cli
from tests.drawn import plain, yolo_dataset


@dataclass
class Site:
    """What the server gives out, and how badly.

    cuts: after how many bytes the next answers break off. ranges: whether parts can be asked for. status: refusals
    given before anything else.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    etag: str | None = '"one"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    redirects: dict[str, str] = field(default_factory=dict)
    honest: bool = True  # whether If-Range is obeyed; storage services have been seen to ignore it
    length: bool = True  # whether the length is told; without it the body comes in chunks
    wait: str | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def site() -> Iterator[Site]:
    offer = Site()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            offer.asked.append((self.path, wanted))
            target = offer.redirects.get(self.path.split("?")[0])
            if target is not None:
                self.send_response(302)
                self.send_header("Location", target)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = offer.files.get(self.path.split("?")[0])
            status = offer.status.pop(0) if offer.status else 200 if body is not None else 404
            if status != 200 or body is None:
                self.send_response(status)
                if offer.wait:
                    self.send_header("Retry-After", offer.wait)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start = 0
            if wanted and offer.ranges and (self.headers.get("If-Range") == offer.etag or not offer.honest):
                start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
                if start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                status = 206
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            if offer.etag:
                self.send_header("ETag", offer.etag)
            if offer.length:
                self.send_header("Content-Length", str(len(body) - start))
            else:
                self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            cut = offer.cuts.pop(0) if offer.cuts else len(body)
            sent = body[start : start + cut]
            if offer.length:
                self.wfile.write(sent)
                self.close_connection = True
                return
            for at in range(0, len(sent), 100_000):
                piece = sent[at : at + 100_000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if start + cut >= len(body):
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = True

        protocol_version = "HTTP/1.1"  # chunks need it

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    offer.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield offer
    server.shutdown()
    server.server_close()


BODY = bytes(range(256)) * 4000


def zipped(write: Callable[[zipfile.ZipFile], None]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        write(archive)
    return buffer.getvalue()


def folder_zipped(folder: Path, top: str = "") -> bytes:
    def write(archive: zipfile.ZipFile) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{top}{path.relative_to(folder)}")

    return zipped(write)


def get(site: Site, target: Path, sha256: str | None = None) -> None:
    http.fetch(f"{site.url}/a.zip", target, sha256, pause=0.001)


def test_a_broken_transfer_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"], site.cuts = BODY, [300_000, 400_000]
    get(site, tmp_path / "a.zip", hashlib.sha256(BODY).hexdigest())
    assert (tmp_path / "a.zip").read_bytes() == BODY
    starts = [int((wanted or "bytes=0-")[6:-1]) for _, wanted in site.asked]
    assert starts[0] == 0 and 0 < starts[1] <= 300_000 < starts[2] <= 700_000 and len(starts) == 3
    assert list(tmp_path.iterdir()) == [tmp_path / "a.zip"]


def test_a_later_run_goes_on_too(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"], site.cuts = BODY, [500_000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(InputError, match=r"a\.zip"):
        get(site, tmp_path / "a.zip")
    arrived = (tmp_path / "a.zip.part").stat().st_size
    assert 0 < arrived <= 500_000
    site.cuts.clear()
    site.asked.clear()
    get(site, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY and site.asked == [("/a.zip", f"bytes={arrived}-")]


@pytest.mark.parametrize("change", ["no ranges", "another etag", "no etag"])
def test_what_cannot_be_resumed_starts_again(site: Site, tmp_path: Path, change: str) -> None:
    site.files["/a.zip"], site.cuts = BODY[::-1], [500_000, 0, 0, 0, 0, 0, 0]
    if change == "no etag":
        site.etag = None
    with pytest.raises(InputError):
        get(site, tmp_path / "a.zip")
    site.files["/a.zip"], site.cuts = BODY, []
    site.ranges = change != "no ranges"
    if change == "another etag":
        site.etag = '"two"'
    get(site, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_part_that_is_the_whole_is_enough(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"] = BODY
    (tmp_path / "a.zip.part").write_bytes(BODY)
    (tmp_path / "a.zip.from").write_text(json.dumps({"url": f"{site.url}/a.zip", "mark": '"one"'}))
    get(site, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY and len(site.asked) == 1


def test_a_busy_server_is_asked_again_and_a_refusal_is_not(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"], site.status = BODY, [503, 429]
    get(site, tmp_path / "a.zip")
    assert len(site.asked) == 3
    for status in (401, 403, 404):
        site.asked.clear()
        site.status = [status]
        with pytest.raises(InputError, match=str(status)):
            get(site, tmp_path / f"{status}.zip")
        assert len(site.asked) == 1


def test_a_signed_link_behind_a_redirect_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    """As release files and dataset exports come: one address that leads to a storage service, anew each time."""
    site.files["/store/a"], site.cuts, site.redirects = BODY, [300_000], {"/a.zip": "/store/a?signature=1"}
    get(site, tmp_path / "a.zip", hashlib.sha256(BODY).hexdigest())
    assert (tmp_path / "a.zip").read_bytes() == BODY
    last = site.asked[-1]
    assert last[0] == "/store/a?signature=1" and last[1] is not None and last[1] != "bytes=0-"


def test_a_changed_file_is_not_joined_to_the_old_part_by_a_server_that_ignores_if_range(
    site: Site, tmp_path: Path
) -> None:
    site.files["/a.zip"], site.cuts = BODY[::-1], [500_000, 0, 0, 0, 0, 0, 0]
    with pytest.raises(InputError):
        get(site, tmp_path / "a.zip")
    site.files["/a.zip"], site.cuts, site.etag, site.honest = BODY, [], '"two"', False
    get(site, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == BODY


def test_a_file_of_unknown_length_arrives_whole_or_is_asked_for_again(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"], site.length, site.cuts = BODY, False, [300_000]
    seen: list[int | None] = []
    http.fetch(f"{site.url}/a.zip", tmp_path / "a.zip", None, lambda done, total: seen.append(total), pause=0.001)
    assert (tmp_path / "a.zip").read_bytes() == BODY and seen[0] is None and len(site.asked) == 2


def test_a_busy_server_says_how_long_to_wait(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(http.time, "sleep", waited.append)
    for wait in ("7", "100000", "Wed, 21 Oct 2026 07:28:00 GMT", "-3"):
        site.files["/a.zip"], site.status, site.wait = BODY, [429], wait
        get(site, tmp_path / f"{len(waited)}.zip")
    assert waited == [7, 60, 0.001, 0.001]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_a_full_disk_is_not_blamed_on_the_network(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"] = BODY
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    (tmp_path / "a.zip.from").write_text(json.dumps({"url": f"{site.url}/a.zip", "mark": '"one"'}))
    with pytest.raises(InputError, match=r"a\.zip\.part: cannot be written \(No space left"):
        get(site, tmp_path / "a.zip")
    assert len(site.asked) == 1


def test_a_redirect_out_of_the_web_is_not_followed(site: Site, tmp_path: Path) -> None:
    site.redirects = {"/a.zip": "ftp://127.0.0.1/a.zip"}
    with pytest.raises(InputError, match="only http"):
        get(site, tmp_path / "a.zip")


def test_a_server_that_starts_over_each_time_is_given_up(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"], site.ranges, site.cuts = BODY, False, [300_000] * 50
    with pytest.raises(InputError, match="broke off"):
        get(site, tmp_path / "a.zip")
    assert len(site.asked) < 10


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.files["/a.zip"] = BODY
    with pytest.raises(InputError, match="SHA-256"):
        get(site, tmp_path / "a.zip", "0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_only_http_is_fetched(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(InputError, match="only http"):
        http.fetch(f"file://{tmp_path}/secret", tmp_path / "a.zip")


def link(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("images/link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda z: z.writestr("../outside.txt", "x"), "leads out"),
        (lambda z: z.writestr("a/../../outside.txt", "x"), "leads out"),
        (lambda z: z.writestr("/tmp/outside.txt", "x"), "leads out"),
        (lambda z: z.writestr("C:/outside.txt", "x"), "leads out"),
        (lambda z: z.writestr("..\\outside.txt", "x"), "leads out"),
        (link, "link"),
        (lambda z: z.writestr("bomb", bytes(200 << 20)), "would unpack"),
        (lambda z: [z.writestr("same.txt", "x"), z.writestr("same.txt", "y")], "twice"),
        (lambda z: None, "empty"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_made_to_harm_are_refused(tmp_path: Path, write: Callable[[zipfile.ZipFile], None], said: str) -> None:
    inside = tmp_path / "box" / "data"
    inside.mkdir(parents=True)
    (tmp_path / "box" / "bad.zip").write_bytes(zipped(write))
    with pytest.raises(InputError, match=said):
        http.unpack(tmp_path / "box" / "bad.zip", inside)
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) in (["bad.zip"], ["bad.zip", "same.txt"])


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    whole = zipped(lambda z: z.writestr("a.bin", bytes(range(256)) * 100))
    broken = bytearray(whole)
    broken[60] ^= 0xFF
    (tmp_path / "page.zip").write_bytes(b"\n <!DOCTYPE html><title>Sign in</title>")
    with pytest.raises(InputError, match="a web page, not an archive"):
        http.unpack(tmp_path / "page.zip", tmp_path)
    for content in (b"", b"no archive", whole[: len(whole) // 2], bytes(broken)):
        (tmp_path / "a.zip").write_bytes(content)
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        with pytest.raises(InputError, match=r"a\.zip"):
            http.unpack(tmp_path / "a.zip", folder)


@pytest.fixture
def desk(tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder whose card `walls` names an archive on the server."""
    folder = tmp_path / "desk"
    (folder / "datasets").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("SEGDET_DATASETS", raising=False)
    monkeypatch.delenv("ROBOFLOW_API_KEY", raising=False)
    source = yolo_dataset(tmp_path / "source", train=2, val=1, size=(24, 24))
    site.files["/walls.zip"] = folder_zipped(source, "walls-v2/")
    card(folder, download=[{"url": f"{site.url}/walls.zip", "strip": True}])
    return folder


def card(folder: Path, **more: object) -> None:
    content = {"name": "walls", "title": "Walls", "task": "segmentation", "licence": "ours", **more}
    (folder / "datasets" / "walls.yaml").write_text(json.dumps(content))


def test_a_named_dataset_arrives_where_it_is_looked_for(desk: Path, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    got = download.download("walls", progress=lambda *told: seen.append(told))
    assert got.folder == Path("datasets/walls") and got.licence == "ours" and got.files == 7
    assert seen[-1][0] == "walls.zip" and seen[-1][1] == seen[-1][2]
    assert plain(catalog.load("walls")) == plain(catalog.load(str(tmp_path / "source")))
    assert sorted(path.name for path in Path("datasets").iterdir()) == ["walls", "walls.yaml"]
    with pytest.raises(InputError, match="exists already"):
        download.download("walls")


def test_another_folder(desk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert download.download("walls", tmp_path / "here").folder == tmp_path / "here"
    monkeypatch.setenv("SEGDET_DATASETS", str(tmp_path / "disk"))
    assert download.download("walls").folder == tmp_path / "disk" / "walls"


def test_an_archive_that_harms_leaves_no_dataset(desk: Path, site: Site) -> None:
    site.files["/walls.zip"] = zipped(lambda z: [z.writestr("images/a.txt", "x"), z.writestr("../b.txt", "x")])
    with pytest.raises(InputError, match="leads out"):
        download.download("walls")
    assert not Path("datasets/walls").exists() and not Path("datasets/b.txt").exists()


def test_a_repaired_archive_is_fetched_anew(desk: Path, site: Site) -> None:
    good = site.files["/walls.zip"]
    site.files["/walls.zip"] = good[:500]
    with pytest.raises(InputError, match="damaged archive"):
        download.download("walls")
    site.files["/walls.zip"] = good
    assert download.download("walls").files == 7


def test_several_archives_make_one_dataset(desk: Path, site: Site, tmp_path: Path) -> None:
    for part in ("images", "labels"):
        site.files[f"/{part}.zip"] = folder_zipped(tmp_path / "source" / part, f"{part}/")
    card(desk, classes=["crack"], download=[{"url": f"{site.url}/{part}.zip"} for part in ("images", "labels")])
    download.download("walls")
    loaded = catalog.load("walls")
    assert loaded.classes == ("crack",) and {s: len(r) for s, r in loaded.splits.items()} == {"train": 2, "val": 1}


def roboflow(site: Site, desk: Path, answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ROBOFLOW", site.url)
    monkeypatch.setenv("ROBOFLOW_API_KEY", "s3cret")
    site.files["/me/walls/2/yolov8"] = json.dumps(answer).encode()
    card(desk, roboflow="me/walls/2/yolov8", download=[{"url": f"{site.url}/walls.zip", "strip": True}])


def test_with_a_key_roboflow_is_asked_for_the_export(desk: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    roboflow(site, desk, {"export": {"link": f"{site.url}/export.zip?signed=abc"}}, monkeypatch)
    site.files["/export.zip"] = site.files["/walls.zip"]
    got = download.download("walls")
    assert [path for path, _ in site.asked] == ["/me/walls/2/yolov8?api_key=s3cret", "/export.zip?signed=abc"]
    assert got.sources == (f"{site.url.rsplit(':', 1)[0]}/export.zip",)


def test_an_archive_that_is_no_dataset_is_told_of_and_not_kept(desk: Path, site: Site) -> None:
    site.files["/walls.zip"] = zipped(lambda z: z.writestr("crack-seg.zip", b"PK"))
    with pytest.raises(InputError, match=r"not a dataset that segdet can read; it has crack-seg\.zip"):
        download.download("walls")
    assert not Path("datasets/walls").exists()


def test_roboflow_may_stumble_while_it_prepares(desk: Path, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    roboflow(site, desk, {"export": {"link": f"{site.url}/export.zip"}}, monkeypatch)
    site.files["/export.zip"], site.status = site.files["/walls.zip"], [502, 503]
    assert download.download("walls", pause=0.001).files == 7


@pytest.mark.parametrize(("status", "said"), [(401, "does not accept the key"), (404, "404"), (200, "no export")])
def test_a_refusal_never_shows_the_key(
    desk: Path, site: Site, monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    roboflow(site, desk, {"error": "?"}, monkeypatch)
    site.status = [] if status == 200 else [status]
    with pytest.raises(InputError, match=said) as caught:
        download.download("walls")
    assert "s3cret" not in str(caught.value) and "unset ROBOFLOW_API_KEY" in str(caught.value)
    assert not Path("datasets/walls").exists()


def test_without_a_network_one_line_names_the_ways_out(desk: Path, cli: Cli) -> None:
    card(desk, download=[{"url": "http://127.0.0.1:9/walls.zip"}])
    done = cli("data", "download", "walls", cwd=desk)
    (line,) = done.stderr.strip().splitlines()
    assert done.returncode == 2
    for way in ("127.0.0.1/walls.zip", "datasets/walls", "SEGDET_DATASETS", "crack-demo", "again"):
        assert way in line, line
    assert sorted(path.name for path in (desk / "datasets").iterdir()) == ["walls.yaml"]


def test_the_command_says_what_it_got(desk: Path, cli: Cli) -> None:
    done = cli("data", "download", "walls", "--json", cwd=desk)
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["files"] == 7 and told["licence"] == "ours", done.stderr


def test_names_that_cannot_be_downloaded(desk: Path) -> None:
    for name, said in (("crak", 'did you mean "crack"'), ("crack-demo", "drawn by segdet"), ("mine", "names no file")):
        (desk / "datasets/mine.yaml").write_text("name: mine\ntitle: t\ntask: segmentation\nlicence: ours\n")
        with pytest.raises(InputError, match=said):
            download.download(name)


def test_a_missing_dataset_names_the_download_first(desk: Path) -> None:
    with pytest.raises(InputError, match="`segdet data download crack`"):
        catalog.load("crack")


def test_the_cards_that_come_with_segdet_name_real_places() -> None:
    cards = catalog.cards()
    assert cards["crack"].roboflow and cards["crack"].download and len(cards["coco"].download) == 3
    for entry in (*cards["crack"].download, *cards["coco"].download):
        assert download.Archive(**entry).url.startswith("http")
