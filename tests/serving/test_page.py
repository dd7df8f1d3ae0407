"""The page, used with a real browser as an inspector would use it."""

from __future__ import annotations

import csv
import io
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segdet
from segdet.serving.ops import PAGE
from tests.drawn import crack_picture
from tests.serving.browser import Browser, chromium
from tests.serving.conftest import Server, StartServer, blobs, wall

needs_chromium = pytest.mark.skipif(
    chromium() is None, reason="no chromium: apt-get install chromium (scripts/test.sh does it where it may)"
)
DONE = "document.querySelector('#facts').textContent.includes('pixels')"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    made = Browser(tmp_path_factory.mktemp("browser"))
    yield made
    made.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Browser]:
    """The page, freshly opened; nothing on its console and no request elsewhere when the test is over."""
    browser.window(1400, 900)
    browser.errors.clear()
    browser.requests.clear()
    browser.open(server.address + "/")
    browser.until("!document.querySelector('#model').disabled")
    yield browser
    assert browser.errors == [] and browser.outside(server.address) == []


def _painted(page: Browser) -> int:
    """Pixels on the canvas that are clearly red: the drawn walls are grey."""
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return int(
        page.run(
            "(() => { const v = document.querySelector('#view'), c = new OffscreenCanvas(v.width, v.height);"
            "const pen = c.getContext('2d', {willReadFrequently: true}); pen.drawImage(v, 0, 0);"
            "const p = pen.getImageData(0, 0, c.width, c.height).data;"
            "let n = 0; for (let i = 0; i < p.length; i += 4) if (p[i] > p[i + 1] + 40 && p[i] > p[i + 2] + 20) n++; return n; })()"
        )
    )


def _share(page: Browser) -> str:
    return str(page.run("document.querySelector('#legend tbody tr td:last-child').textContent"))


@needs_chromium
def test_from_a_dropped_photograph_to_its_files(page: Browser, models: dict[str, Path], tmp_path: Path) -> None:
    photo = tmp_path / "pier 3.png"
    photo.write_bytes(wall(1, 200, 300))
    expected = segdet.load(models["walls"]).predict(photo)
    page.drop("#start", [photo])
    page.until(DONE)
    assert _share(page) == f"{expected.areas['crack'] / 60000 * 100:.2f} %"
    before = _painted(page)
    assert before > 100

    # both sliders, with the keyboard, act at once and without asking the server
    asked = len(page.requests)
    page.run("document.querySelector('#opacity').focus()")
    page.press("Home")
    assert page.run("document.querySelector('#opacity-out').textContent") == "0 %" and _painted(page) == 0
    page.press("ArrowRight", 80)
    assert _painted(page) >= before
    page.run("document.querySelector('#threshold').focus()")
    page.press("Home")
    page.press("ArrowRight", 89)
    assert page.run("document.querySelector('#threshold-out').textContent") == "0.90"
    surer = segdet.load(models["walls"], threshold=0.9).predict(photo)
    assert surer.areas["crack"] < expected.areas["crack"]
    page.until(f"parseFloat({_text('#legend tbody td:last-child')}) <= {surer.areas['crack'] / 600 + 0.3}")
    assert _painted(page) < before
    assert len(page.requests) == asked

    # every file, made at that confidence
    def file(format: str, ending: str) -> bytes:
        return page.downloaded(f"pier 3{ending}", lambda: page.click(f'button[data-format="{format}"]'))

    mask = np.asarray(Image.open(io.BytesIO(file("mask", "_mask.png"))))
    assert (mask == surer.mask).all()
    assert (np.asarray(Image.open(io.BytesIO(file("overlay", "_overlay.png")))) == surer.overlay()).all()
    assert json.loads(file("coco", ".coco.json")) == json.loads(
        json.dumps([{**row, "file_name": "pier 3.png"} for row in surer.to_coco("pier 3")])
    )
    assert len(json.loads(file("geojson", ".geojson"))["features"]) == len(surer.regions)
    rows = list(csv.DictReader(io.StringIO(file("csv", ".csv").decode())))
    assert sum(int(row["area"]) for row in rows) == surer.areas["crack"]
    assert "'image=@pier 3.png'" in page.run(_text("#curl")) and "threshold=0.9" in page.run(_text("#curl"))

    # outline, hide, zoom by keyboard; back to the model's own threshold shows the server's mask again
    page.click("#threshold-reset")
    page.until(f"{_text('#legend tbody td:last-child')} === '{expected.areas['crack'] / 600:.2f} %'")
    filled = _painted(page)
    page.click("#style label:nth-of-type(2)")
    assert 0 < _painted(page) < filled
    page.click("#hide")
    assert _painted(page) == 0
    page.run("document.querySelector('#view').focus()")
    page.press("o")
    zoom = page.run(_text("#zoom"))
    page.press("+", 3)
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run(_text("#zoom")) != zoom
    page.press("0")
    page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run(_text("#zoom")) == zoom
    assert "pier 3.png: crack" in page.run("document.querySelector('#view').getAttribute('aria-label')")


def _text(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).textContent"


@needs_chromium
def test_several_photographs_a_tiff_and_a_text_file(page: Browser, models: dict[str, Path], tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(wall(number, 100, 120))
    sixteen = (crack_picture(4, 90, 110)[0].astype(np.uint16) * 257)[..., 0]
    Image.fromarray(sixteen).save(tmp_path / "deep.tif")
    (tmp_path / "notes.txt").write_text("no photograph")
    files = [*(tmp_path / f"{number}.png" for number in range(3)), tmp_path / "deep.tif", tmp_path / "notes.txt"]
    page.choose("#files", files)
    page.until("document.querySelectorAll('#table tbody .n').length === 8")
    assert page.run(_text("#alert-text")) == "notes.txt: not an image. Take a JPEG, PNG, WebP, TIFF or BMP."
    page.click("#alert-close")
    assert page.run("document.querySelector('#alert').hidden")
    page.click("#table tbody tr:nth-child(4) button")
    page.until(f"{_text('#name')} === 'deep.tif' && {_text('#facts')}.startsWith('110 × 90')")
    assert _painted(page) > 20
    table = page.downloaded("photographs.csv", lambda: page.click("#table-csv")).decode()
    rows = list(csv.DictReader(io.StringIO(table)))
    assert [row["image"] for row in rows] == ["0.png", "1.png", "2.png", "deep.tif"]
    for row in rows[:3]:
        expected = segdet.load(models["walls"]).predict(tmp_path / row["image"]).areas["crack"] / 12000
        assert float(row["crack share"]) == pytest.approx(expected, abs=1e-6)
    page.click("#clear")
    assert page.run("document.querySelector('#work').hidden && !document.querySelector('#start').hidden")


@needs_chromium
def test_a_damaged_photograph_is_told_in_the_servers_words(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(wall(1)[:200])
    page.choose("#files", [tmp_path / "broken.png"])
    page.until(f"{_text('#alert-text')}.includes('broken.png')")
    assert "damaged" in page.run(_text("#alert-text"))
    assert len(page.errors) == 1 and "400" in page.errors[0]  # the browser's own note of the answer
    page.errors.clear()


@needs_chromium
def test_boxes_of_a_detector_and_pasting(page: Browser) -> None:
    page.run(
        "(() => { const m = document.querySelector('#model'); m.value = 'blobs'; m.dispatchEvent(new Event('change')); })()"
    )
    data = ",".join(str(byte) for byte in blobs())
    page.run(
        f"(() => {{ const d = new DataTransfer(); d.items.add(new File([new Uint8Array([{data}])], 'p.png', {{type: 'image/png'}}));"
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData: d, bubbles: true, cancelable: true})); })()"
    )
    page.until(DONE)
    shares = page.run("[...document.querySelectorAll('#legend tbody td:last-child')].map((cell) => cell.textContent)")
    assert shares == ["1 box", "0 boxes", "1 box"]
    page.run("document.querySelector('#threshold').focus()")
    page.press("Home")
    page.press("ArrowRight", 79)  # 0.80: the blue one has 0.70
    page.until(f"{_text('#legend tbody tr:nth-child(3) td:last-child')} === '0 boxes'")
    found = json.loads(page.downloaded("p.coco.json", lambda: page.click('button[data-format="coco"]')))
    assert [row["category_id"] for row in found] == [1]
    assert page.run("document.querySelector('button[data-format=mask]').disabled")


@needs_chromium
def test_a_late_answer_of_the_model_before_is_not_shown(page: Browser, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(blobs())
    page.run(  # the first model's confidence is decoded only when it is let go
        "(() => { const real = createImageBitmap, held = new Promise((go) => { window.go = go; });"
        "window.createImageBitmap = async (source, options) => {"
        "if (options?.colorSpaceConversion) { window.reached = true; await held; } return real(source, options); }; })()"
    )
    page.choose("#files", [tmp_path / "p.png"])
    page.until("window.reached")
    page.run(
        "(() => { const m = document.querySelector('#model'); m.value = 'blobs'; m.dispatchEvent(new Event('change')); })()"
    )
    page.until(DONE)
    shares = "[...document.querySelectorAll('#legend tbody td:last-child')].map((cell) => cell.textContent)"
    assert page.run(shares) == ["1 box", "0 boxes", "1 box"]
    page.run("(window.go(), new Promise((done) => setTimeout(done, 500)))")
    assert page.run(shares) == ["1 box", "0 boxes", "1 box"]


@needs_chromium
@pytest.mark.parametrize(("width", "height", "dark", "phone"), [(1400, 900, False, False), (390, 844, True, True)])
def test_the_sample_in_light_and_dark_wide_and_on_a_phone(
    page: Browser, tmp_path: Path, width: int, height: int, dark: bool, phone: bool
) -> None:
    page.window(width, height, dark, phone)
    page.click("#sample")
    page.until(DONE)
    page.picture(tmp_path / "page.png")
    shown = np.asarray(Image.open(tmp_path / "page.png").convert("L"))
    assert (np.median(shown[:20]) < 100) == dark
    assert page.run("document.documentElement.scrollWidth <= innerWidth")  # nothing sticks out
    unnamed = page.run(
        "[...document.querySelectorAll('button, input, select, canvas')].filter((e) => !e.closest('[hidden]') && "
        "!(e.textContent.trim() || e.labels?.length || e.ariaLabel || e.getAttribute('aria-label'))).map((e) => e.outerHTML)"
    )
    assert unnamed == []


@needs_chromium
def test_the_api_page_calls_the_api(browser: Browser, server: Server) -> None:
    browser.errors.clear()
    browser.open(server.address + "/docs")
    browser.until("document.querySelectorAll('#routes article').length > 10")
    browser.click("#tries button:nth-child(2)")
    browser.until("!!document.querySelector('#answer img')")
    assert browser.errors == [] and browser.outside(server.address) == []


@needs_chromium
def test_the_table_as_csv_says_which_photographs_failed(browser: Browser, server: Server, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(wall(1))
    (tmp_path / "bad.png").write_bytes(wall(1)[:300])
    browser.open(server.address + "/")
    browser.until("!document.querySelector('#model').disabled")
    browser.choose("#files", [tmp_path / "good.png", tmp_path / "bad.png"])
    browser.until(
        "document.querySelectorAll('#table tbody .n').length === 2 && !!document.querySelector('#table .bad')"
    )
    table = browser.downloaded("photographs.csv", lambda: browser.click("#table-csv")).decode()
    good, bad = csv.DictReader(io.StringIO(table))
    assert good["image"] == "good.png" and float(good["crack share"]) > 0 and good["error"] == ""
    assert bad["image"] == "bad.png" and bad["crack share"] == "" and "bad.png" in bad["error"]
    assert browser.run("document.querySelector('#curl').textContent.startsWith('curl -F ')")  # this server wants no key
    browser.send("Page.navigate", url="about:blank")


@needs_chromium
def test_the_page_works_where_browsers_send_no_sec_fetch_site(
    start: StartServer, browser: Browser, models: dict[str, Path]
) -> None:
    """Plain http on another address than localhost: only Origin says whose page it is."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # nothing is sent
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but localhost")
        own = probe.getsockname()[0]
    open_to_all = start("--model", models["walls"], "--host", "0.0.0.0", "--drain-delay", 0)
    browser.open(open_to_all.address.replace("0.0.0.0", own) + "/")
    browser.until("!document.querySelector('#model').disabled || !!document.querySelector('#about').textContent")
    assert browser.run("isSecureContext") is False
    browser.click("#sample")
    browser.until(DONE)
    browser.send("Page.navigate", url="about:blank")


@needs_chromium
def test_the_page_asks_for_the_key(start: StartServer, browser: Browser, models: dict[str, Path]) -> None:
    guarded = start("--model", models["blobs"], "--api-key", "secret", "--drain-delay", 0)
    browser.open(guarded.address + "/")
    browser.until("!document.querySelector('#key-form').hidden")
    browser.run("document.querySelector('#key').value = 'secret'")
    browser.click("#key-form button")
    browser.until("document.querySelector('#about').textContent.includes('finds red')")
    browser.click("#sample")
    browser.until(DONE)
    assert browser.run(_text("#curl")).startswith("curl -H 'X-API-Key: ...' -F 'image=@sample.jpg' ")
    browser.send("Page.navigate", url="about:blank")


def test_nothing_in_the_page_is_inline_or_from_elsewhere(server: Server) -> None:
    policy = server.client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    for file in PAGE.iterdir():
        if file.suffix in (".html", ".css", ".js"):
            text = file.read_text()
            assert not re.findall(r"(?:src|href)=[\"'](?!/|\$)", text) and "style=" not in text, file
            outside = [url for url in re.findall(r"https?://[\w.:]+", text) if url != "http://127.0.0.1:8000"]
            assert outside == [], file
            assert " onclick=" not in text and not re.findall(r"<script(?! type=\"module\" src)", text), file
