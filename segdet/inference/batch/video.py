"""Videos: frame by frame, steadied over time when asked, with an annotated video out."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from segdet.console import say
from segdet.data.images import ImageError
from segdet.errors import SegdetError, setting
from segdet.files import replacing
from segdet.inference.batch.writers import Files, row_of, write_image
from segdet.inference.io.coco_ids import ImageKey
from segdet.inference.io.sources import Source
from segdet.inference.predict.predictor import Predictor
from segdet.inference.predict.results import SegmentationResult
from segdet.places import nameable

_AHEAD = 4  # frames decoded while one is worked on
_USUAL_RATE = 25.0  # frames a second of a video that does not say
_UNEVEN = 0.5  # share of the time between two frames by which it may differ from the usual
_ESTIMATE = 0.05  # share of its frames by which a header may be wrong: many tell a length in seconds only


@dataclass(frozen=True)
class Clip:
    """An open video. frames: as its header counts them, 0 where it does not. rate: frames a second."""

    path: Path
    capture: Any
    frames: int
    rate: float

    def __iter__(self) -> Iterator[tuple[float, np.ndarray]]:
        """Yield (time in seconds, frame RGB uint8 `[H, W, 3]`, upright); a few frames are decoded ahead.

        The time is the one that the video stores with the frame. Where it stores none, times advance by the usual rate.
        """

        def grab() -> tuple[float, np.ndarray] | None:
            good, frame = self.capture.read()
            if not good:
                return None
            return self.capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)

        before = -1 / self.rate
        with ThreadPoolExecutor(1) as pool:
            waiting: deque[Future[tuple[float, np.ndarray] | None]] = deque(pool.submit(grab) for _ in range(_AHEAD))
            while (grabbed := waiting.popleft().result()) is not None:
                waiting.append(pool.submit(grab))
                stored, frame = grabbed
                before = stored if stored > before else before + 1 / self.rate
                yield before, frame


def open_clip(path: Path) -> Clip:
    """Open a video.

    Raises:
        ImageError: not a video, or one whose first frame cannot be decoded.
    """
    if not path.is_file():
        raise ImageError(f"{path}: no such file")
    _hush()
    with nameable(path) as name:
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    if not capture.isOpened():
        raise ImageError(f"{path}: not a video that OpenCV reads, or damaged; convert it to MP4 (ffmpeg -i IN OUT.mp4)")
    rate = capture.get(cv2.CAP_PROP_FPS)
    return Clip(
        path, capture, max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), rate if 0 < rate < 1000 else _USUAL_RATE
    )


def _hush() -> None:
    """Silence OpenCV and FFmpeg, whose own variables bring their messages back: an unusable video is one line."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # AV_LOG_QUIET; read when the first video is opened
    if "OPENCV_LOG_LEVEL" not in os.environ:
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def predict_video(
    predictor: Predictor,
    source: Source,
    folder: Path,
    kinds: Sequence[str],
    smooth: float,
    key: ImageKey,
    keep: Callable[[dict[str, Any], int | None], None],
    advance: Callable[..., None],
) -> dict[str, Any]:
    """Predict every frame and write its files: `<name>_overlay.mp4`, and per frame (from 1) the other kinds.

    Args:
        smooth: share of the previous frames' confidence that stays, 0..1 (segmentation of one class only).
        key: the video's in COCO results, to which each frame adds its number.
        keep: takes the row of each frame with its number.

    Returns:
        The row of the video: its `classes` say the most found in any frame; `frames_missing` is there where it ended early.

    Raises:
        ImageError: no frame could be decoded.
    """
    clip = open_clip(source.path)
    most: dict[str, Any] = {}
    files: Files = {}
    number, size = 0, (0, 0)
    last, uneven = 0.0, False
    before: np.ndarray | None = None
    with ExitStack() as stack:
        canvas: _Canvas | None = None
        for number, (time, frame) in enumerate(clip, 1):
            uneven |= number > 1 and abs((time - last) * clip.rate - 1) > _UNEVEN
            last = time
            result = predictor.predict_batch([frame])[0]
            if smooth and isinstance(result, SegmentationResult):
                result, before = _steadied(result, before, smooth)
            size = result.size
            if "overlay" in kinds:
                picture = result.overlay()
                if canvas is None:
                    files["overlay"] = folder / f"{source.name}_overlay.mp4"
                    temporary = stack.enter_context(replacing(files["overlay"]))
                    canvas = stack.enter_context(_Canvas(temporary, picture, clip.rate))
                canvas.write(picture)
            others = [kind for kind in kinds if kind != "overlay"]
            written = write_image(result, folder, f"{source.name}/{number:06d}", others)
            row = row_of(result, kinds, Path(f"{source.path}#{number:06d}"), key.frame(number))
            most = _most(most, row["classes"])
            row["files"] = {kind: str(file) for kind, file in written.items()}
            keep({**row, "time": round(time, 3)}, number)
            advance(note=f"{source.name}: frame {number}{f' of {clip.frames}' if clip.frames else ''}")
    if not number:
        raise ImageError(
            f"{source.path}: no frame of this video can be decoded; convert it to MP4 (ffmpeg -i IN OUT.mp4)"
        )
    if uneven and "overlay" in kinds:
        say(
            f"{source.path}: its frame rate varies; the results have the time of each frame, "
            f"the overlay shows {clip.rate:.3g} frames a second"
        )
    about = {"image": str(source.path), "width": size[1], "height": size[0], "threshold": predictor.threshold}
    paths = {kind: str(file) for kind, file in files.items()}
    row = {**about, "classes": most, "frames": number, "rate": clip.rate, "files": paths}
    missing = clip.frames - number
    if missing <= 1 + _ESTIMATE * clip.frames:
        return row
    say(f"{source.path}: ends after {number} of about {clip.frames} frames; the rest is damaged or was cut off")
    return {**row, "frames_missing": missing}


def _steadied(
    result: SegmentationResult, before: np.ndarray | None, smooth: float
) -> tuple[SegmentationResult, np.ndarray]:
    """The prediction from a running mean of confidences, and that mean."""
    mean = result.confidence
    if before is not None and before.shape == mean.shape:
        mean = np.float32(smooth) * before + np.float32(1 - smooth) * mean
    mask = (mean >= np.float32(0.5 if result.threshold is None else result.threshold)).view(np.uint8)
    return replace(result, mask=mask, confidence=mean), mean


def _most(most: dict[str, Any], classes: dict[str, Any]) -> dict[str, Any]:
    def larger(name: str, now: Any) -> Any:
        before = most.get(name, now)
        return max(before, now) if isinstance(now, int) else max(before, now, key=lambda row: row["pixels"])

    return {name: larger(name, now) for name, now in classes.items()}


class _Canvas:
    """An MP4 that takes RGB pictures of one size (sides cut to even numbers, which the codec asks for)."""

    def __init__(self, path: Path, first: np.ndarray, rate: float) -> None:
        self._height, self._width = (max(2, side // 2 * 2) for side in first.shape[:2])
        code = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
        with nameable(path) as name:
            self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, code, rate, (self._width, self._height))
        if not self._writer.isOpened():
            raise SegdetError(f"{path}: this OpenCV cannot write MP4 videos; leave overlay out of {setting('save')}")

    def __enter__(self) -> _Canvas:
        return self

    def write(self, picture: np.ndarray) -> None:
        if min(picture.shape[:2]) < 2:
            picture = np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1)
        bgr = cv2.cvtColor(picture[: self._height, : self._width], cv2.COLOR_RGB2BGR)
        if bgr.shape[:2] != (self._height, self._width):  # a stream that changes its size
            bgr = cv2.resize(bgr, (self._width, self._height), interpolation=cv2.INTER_AREA)
        self._writer.write(bgr)

    def __exit__(self, *failure: object) -> None:
        self._writer.release()
