"""Predicting many images: read ahead, predict, write behind, and go on when one of them is damaged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from segdet.console import progress, say
from segdet.data.images import ImageError
from segdet.data.records import Unread
from segdet.data.tiff import Bands, TiffPicture, bands_of
from segdet.errors import InputError, InvalidOption, setting
from segdet.files import new_folder, sha256_of
from segdet.inference.backends.select import select_device
from segdet.inference.batch import large
from segdet.inference.batch.video import predict_video
from segdet.inference.batch.writers import Files, brief, kinds_of, names_of, row_of, write_image, write_job
from segdet.inference.config import PredictConfig
from segdet.inference.io.coco_ids import ImageKey, Instances, keys_of
from segdet.inference.io.manifest import JOB_FILES, Ledger
from segdet.inference.io.pipeline import Loaded, WriteBehind, read_ahead
from segdet.inference.io.raster import ArrayPicture, remarks
from segdet.inference.io.sources import Source, expand
from segdet.inference.locate_model import find_model
from segdet.inference.predict.predictor import Predictor, open_predictor
from segdet.inference.predict.results import DetectionResult, LargeSegmentationResult, SegmentationResult

Row = dict[str, Any]


@dataclass
class JobResult:
    """What a job did.

    Attributes:
        images: a row for each image that was predicted.
        skipped: path -> reason of each image that could not be used.
        before: how many an earlier run had done.
        left_out: groups of files in the source folders that are no images.
    """

    folder: Path
    model: Path
    device: str
    images: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    before: int = 0
    left_out: list[Row] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For JSON output: the folder, the model, and per image its classes and files, without outlines."""
        about = {"out": str(self.folder), "model": str(self.model), "device": self.device}
        done = {"images": self.images, "skipped": self.skipped, "done_before": self.before}
        return {**about, **done, "left_out": self.left_out}

    def sentence(self) -> str:
        """The result in words."""
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        before = f", {self.before} done before" if self.before else ""
        if len(self.images) != 1 or before:
            count = f"{len(self.images)} image{'s' if len(self.images) != 1 else ''}"
            return f"{count} predicted with {self.model} on {self.device}{before}{skipped}; results in {self.folder}"
        image = self.images[0]
        found = ", ".join(filter(None, (_found(name, row) for name, row in image["classes"].items())))
        seen = next(iter(image["files"].values()), self.folder)
        missing = f"; {image['frames_missing']} are missing" if "frames_missing" in image else ""
        frames = f" (the most in one of {image['frames']} frames{missing})" if "frames" in image else ""
        return f"{image['image']}: {found or 'nothing found'}{frames} (model {self.model} on {self.device}){skipped}; see {seen}"


def _found(name: str, row: int | dict[str, Any]) -> str:
    """One class in words: how many boxes, or what share of the image; empty when there is none of it."""
    if isinstance(row, int):
        return f"{row} {name}" if row else ""
    return f"{name} {row['share']:.2%} of the image" if row["pixels"] else ""


def predict_sources(sources: Sequence[str | Path], config: PredictConfig) -> JobResult:
    """Predict images, videos, folders, patterns and lists of them, and write the results.

    Args:
        sources: as on the command line; "-" reads names from standard input.

    Raises:
        InputError: no such file, an unusable model, device or setting, or no image that could be read.
    """
    bands = None if config.bands is None else bands_of(config.bands)
    left_out: list[Unread] = []
    expanded = expand([str(source) for source in sources], config.out or Path("runs"), left_out)
    file = find_model(config.model)
    device = select_device(file, config.device, expanded, config.threads)
    predictor = open_predictor(
        file, config.threshold, config.tile, device, config.threads, config.imgsz, config.multiscale_to
    )
    kinds = kinds_of(config.save, predictor.session.metadata.task)
    result = run_job(
        predictor,
        expanded,
        config.out,
        kinds,
        skip_done=config.skip_done,
        smooth=config.smooth,
        bands=bands,
        coco_ids=config.coco_ids,
    )
    result.left_out = [group.to_dict() for group in left_out]
    return result


def run_job(
    predictor: Predictor,
    sources: Sequence[Source],
    out: Path | None,
    kinds: Sequence[str],
    *,
    skip_done: bool = False,
    smooth: float = 0.0,
    bands: Bands | None = None,
    coco_ids: Path | None = None,
) -> JobResult:
    """Predict every source, and write the files of each image and those of the whole job.

    Args:
        out: folder for the results; None makes a new `runs/predict`.
        kinds: of `writing.KINDS` for the model's task.
        skip_done: leave out images that an earlier run into `out` has done with the same model and options.
        smooth: for videos, the share of the previous frames' confidence that stays, 0..1.
        bands: which bands of TIFFs to read, numbered from 1; None for the first ones.
        coco_ids: a COCO file whose ids of images and categories the COCO results carry; None for ids from the names.

    Raises:
        InputError: none of the images could be read, the folder cannot be written or holds files of somebody else that would
            be replaced, or options that do not fit.
    """
    _check(predictor, out, skip_done, smooth)
    if coco_ids is not None and "coco" not in kinds:
        raise InvalidOption("coco_ids", coco_ids, "no COCO results are written", f"add coco to {setting('save')}")
    result = JobResult(out or Path(), predictor.session.path, predictor.session.device)
    job = _Job(predictor, result, out, kinds, skip_done, smooth, bands, coco_ids)
    try:
        job.run(sources)
        if not result.images and not result.before:
            first = job.refused[0].message
            raise InputError(
                first if len(sources) == 1 else f"none of the {len(sources)} images could be read; the first: {first}"
            )
        write_job(result.folder, predictor, job.ledger, result.skipped, kinds)
    finally:
        job.close()
    return result


class _Job:
    """One run over the sources. The folder and its ledger are made once there is something to put into them."""

    def __init__(
        self,
        predictor: Predictor,
        result: JobResult,
        out: Path | None,
        kinds: Sequence[str],
        resume: bool,
        smooth: float,
        bands: Bands | None,
        coco_ids: Path | None,
    ) -> None:
        self._predictor, self._result = predictor, result
        self._kinds, self._resume, self._smooth = kinds, resume, smooth
        self._bands, self._coco_ids = bands, coco_ids
        self._sources: Sequence[Source] = ()
        self._names: list[str] = []  # of the files that may be written
        self._keys: dict[str, ImageKey] = {}
        self._ledger = None if out is None else self._in(out)
        self._begun = False
        self.refused: list[ImageError] = []

    @property
    def ledger(self) -> Ledger:
        if not self._begun:
            if self._ledger is None:
                self._result.folder = new_folder("runs", "predict")
                self._ledger = self._in(self._result.folder)
            self._tell_what_is_gone(self._ledger)
            self._ledger.begin(self._names)
            self._begun = True
        assert self._ledger is not None
        return self._ledger

    def _in(self, folder: Path) -> Ledger:
        about: dict[str, Any] = {
            "model": sha256_of(self._result.model),
            "threshold": self._predictor.threshold,
            "tile": [self._predictor.tile, self._predictor.whole],
            "save": sorted(self._kinds),
            "smooth": self._smooth,
        }
        if self._predictor.imgsz is not None:
            about["imgsz"] = self._predictor.imgsz
        if self._predictor.multiscale_to:
            about["down_to"] = self._predictor.multiscale_to
        if self._bands is not None:
            about["bands"] = list(self._bands)
        if self._coco_ids is not None and self._coco_ids.is_file():
            about["coco_ids"] = sha256_of(self._coco_ids)
        return Ledger(folder, about, self._resume)

    def close(self) -> None:
        if self._begun:
            self.ledger.close()

    def run(self, sources: Sequence[Source]) -> None:
        todo = [source for source in sources if self._ledger is None or not self._ledger.has(source.path)]
        self._result.before = len(sources) - len(todo)
        self._sources, self._keys = sources, self._keys_of(sources)
        self._names = [name for source in todo for name in names_of(source, self._kinds)]
        self._names += [name for kind, name in JOB_FILES.items() if kind in self._kinds]
        self._spare_others()
        behind: WriteBehind[tuple[Source, Row]]
        with progress("predicting", len(todo)) as advance, WriteBehind(self._keep) as behind:
            for group in _groups(read_ahead(todo, self._bands), self._predictor.batch):
                source, loaded = group[0]
                if isinstance(loaded, ImageError):
                    self._skip(source, loaded, len(sources))
                elif source.is_video:
                    behind.drain()
                    self._video(source, len(sources), advance)
                elif self._is_large(loaded):
                    behind.drain()
                    self._large(source, loaded, len(sources))
                else:
                    self._ordinary(group, behind)
                    if _pixels(loaded) > large.HELD:  # one such answer in memory is enough
                        behind.drain()
                advance(len(group))

    def _keys_of(self, sources: Sequence[Source]) -> dict[str, ImageKey]:
        """The key in COCO results of each source, by its name."""
        if self._coco_ids is None:
            keys = keys_of([source.file_name for source in sources])
        else:
            instances, classes = Instances(self._coco_ids), self._predictor.session.metadata.classes
            keys = [instances.key(source.path, classes) for source in sources]
        return {source.name: key for source, key in zip(sources, keys, strict=True)}

    def _spare_others(self) -> None:
        """Refuse to replace what no run wrote: masks drawn by hand lie beside photographs under the very names of results."""
        folder = self._result.folder
        if self._ledger is None or not folder.is_dir():
            return
        others = [n for n in self._names if n not in self._ledger.earlier.written and (folder / n).exists()]
        if others:
            more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
            raise InputError(
                f"{folder / others[0]}: exists and is not from segdet{more}; choose another {setting('out')}"
            )

    def _tell_what_is_gone(self, ledger: Ledger) -> None:
        files = [name for kind, name in JOB_FILES.items() if kind in self._kinds]
        gone = ledger.earlier.done.keys() - {str(source.path.absolute()) for source in self._sources}
        if gone and files and not self._resume:
            images, kept = (f"{len(gone)} images", "them") if len(gone) > 1 else ("1 image", "it")
            lost = f"{', '.join(files)}: {images} of an earlier run no longer there"
            say(f"{self._result.folder}: {lost}; the setting skip_done would have kept {kept}")

    def _ordinary(self, group: Sequence[tuple[Source, Loaded]], behind: WriteBehind[tuple[Source, Row]]) -> None:
        arrays = [loaded for _, loaded in group if isinstance(loaded, np.ndarray)]
        _ = self.ledger  # the folder is there before threads write into it
        for (source, _), prediction in zip(group, self._predictor.predict_batch(arrays), strict=True):
            behind.submit(partial(self._write, source, prediction))

    def _write(self, source: Source, prediction: SegmentationResult | DetectionResult) -> tuple[Source, Row]:
        files = write_image(prediction, self._result.folder, source.name, self._kinds)
        return source, self._row(source, prediction, files)

    def _row(
        self, source: Source, found: SegmentationResult | LargeSegmentationResult | DetectionResult, files: Files
    ) -> Row:
        row = row_of(found, self._kinds, source.path, self._keys[source.name])
        row |= remarks(source.path if source.data is None else source.data, self._bands)
        return {**row, "files": {kind: str(file) for kind, file in files.items()}}

    def _large(self, source: Source, loaded: Loaded, count: int) -> None:
        picture = ArrayPicture(loaded) if isinstance(loaded, np.ndarray) else loaded
        assert not isinstance(picture, ImageError)
        try:
            if self._predictor.imgsz is not None:
                why = f"is read in windows and cannot be resized; leave {setting('imgsz')} out or make the picture smaller"
                raise ImageError(f"{source.path}: {why}")
            if self._predictor.multiscale_to:
                say(f"{source.path}: over {large.HELD // 1_000_000} megapixels: predicted at one scale")
            _ = self.ledger
            found, files = large.write_large(self._predictor, picture, self._result.folder, source.name, self._kinds)
        except ImageError as error:  # a damaged tile shows only when its turn comes
            self._skip(source, error, count)
            return
        finally:
            if isinstance(picture, TiffPicture):
                picture.close()
        self._keep((source, self._row(source, found, files)))

    def _video(self, source: Source, count: int, advance: Any) -> None:
        def keep(row: Row, frame: int | None) -> None:
            self.ledger.add(source.path, row, frame)

        def step(note: str) -> None:
            advance(0, note)

        try:
            _ = self.ledger
            folder = self._result.folder
            key = self._keys[source.name]
            row = predict_video(self._predictor, source, folder, self._kinds, self._smooth, key, keep, step)
        except ImageError as error:
            self._skip(source, error, count)
        else:
            self._keep((source, row))

    def _keep(self, done: tuple[Source, Row]) -> None:
        source, row = done
        self.ledger.add(source.path, row)
        self._result.images.append(brief(row))
        if "pages" in row:
            say(f"{source.path}: the first of {row['pages']} pages; {row['pages'] - 1} are left out")
        if "bands" in row and self._bands is None:
            read = f"band{'s' if len(row['bands']) > 1 else ''} {', '.join(map(str, row['bands']))}"
            say(f"{source.path}: {read} of {row['bands_stored']}; the setting bands chooses others")

    def _skip(self, source: Source, error: ImageError, count: int) -> None:
        self.refused.append(error)
        self._result.skipped[str(source.path)] = str(error).removeprefix(f"{source.path}: ")
        if count > 1:
            say(f"skipped {error}")

    def _is_large(self, loaded: Loaded) -> bool:
        """Whether the picture is predicted in bands: a large TIFF, or an image whose answer would not fit beside it."""
        if not isinstance(loaded, np.ndarray):
            return True
        return self._predictor.needs_bands(loaded.shape[:2], large.HELD)


def _pixels(loaded: Loaded) -> int:
    return loaded.shape[0] * loaded.shape[1] if isinstance(loaded, np.ndarray) else 0


def _groups(loaded: Iterable[tuple[Source, Loaded]], batch: int) -> Iterator[list[tuple[Source, Loaded]]]:
    """Up to `batch` neighbouring images of one size, to go through the network together; everything else alone."""

    def key(item: tuple[int, tuple[Source, Loaded]]) -> object:
        number, (source, found) = item
        ordinary = isinstance(found, np.ndarray) and _pixels(found) <= large.HELD
        same = ordinary and not source.is_video and batch > 1
        return found.shape if same else number  # type: ignore[union-attr]

    waiting: list[tuple[Source, Loaded]] = []
    last: object = None
    for item in enumerate(loaded):
        kind = key(item)
        if waiting and (kind != last or len(waiting) == batch):
            yield waiting
            waiting = []
        waiting.append(item[1])
        last = kind
    if waiting:
        yield waiting


def _check(predictor: Predictor, out: Path | None, skip_done: bool, smooth: float) -> None:
    if skip_done and out is None:
        hint = f"name it with {setting('out')}"
        raise InvalidOption("skip_done", None, "needs the folder of the earlier run", hint)
    if not 0.0 <= smooth < 1.0:
        raise InvalidOption("smooth", smooth, "must be a share from 0 (off) to below 1")
    if smooth and not predictor.session.metadata.is_binary:
        raise InvalidOption("smooth", smooth, "only for segmentation models of one class", "leave it out")
