"""Runs every folder of small faulty inputs as its README expects, and prints a Markdown table.

    python -m tests.real.cases [NAME ...]

The folders come from `$SEGDET_CASES`, else from `../shared/cases` beside the checkout; real exports from `exports/` in
`$SEGDET_DATASETS`, else from `../shared/data/exports`. Exit code 1 when a case does not hold.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.real import special
from tests.real.harness import (
    ROOT,
    All,
    Case,
    Finds,
    Judged,
    Outcome,
    Reads,
    Refuses,
    Says,
    TrainsLoudly,
    judge,
    table,
)

_HOW = r"--data|segdet |point|give|rename|call it|name it|write|put"  # any hint at what to do
_OUTLINE = r"outline|polygon|segmentation"
_THREE = Reads({"train": 3}, 6)
_MASKS = {"train": 5, "val": 2}
_TWO_NAMES = Reads({"train": 3, "val": 2}, 10, ("crack", "spalling"))
_NAMES = Refuses((r"data\.yaml", "names", r"list|mapping|number|\[|quot|name it"))


def _two_names_or_refused() -> Case:
    return Case((_TWO_NAMES, _NAMES))


CASES: dict[str, Case] = {
    "coco-all-ids-strings": Case((_THREE, Refuses((r"\bids?\b",)))),
    "coco-bbox-xyxy": Case((Says(tuple(rf"annotation {k}\b" for k in (1, 3, 5, 6))),)),
    "coco-custom-names": Case(
        (
            Reads({"train": 2, "val": 1}, 6),
            Refuses((r"instances_train_v2\.json", r"instances_val_v2\.json", _HOW)),
        )
    ),
    "coco-empty-annotations": Case((Says((r"without a single (object|label)|no (annotation|object|label)",)),)),
    "coco-file-name-abs": Case((_THREE, Says((r"c0\.jpg", r"c1\.jpg", r"c2\.jpg")), Refuses((r"c0\.jpg",)))),
    "coco-file-name-url": Case((_THREE, Says((r"c0\.jpg", r"c1\.jpg", r"c2\.jpg")), Refuses((r"c0\.jpg",)))),
    "coco-flat-polygon": Case((_THREE, Says((_OUTLINE, r"\[\[|nested|list of (lists|outlines|polygons|parts)")))),
    "coco-ids-float": Case((_THREE, Refuses((r"1\.0|float|whole number|integer",)))),
    "coco-image-id-string": Case((_THREE, Refuses((r"string|text|quot",)))),
    "coco-image-twice": Case((Says((r"c0\.jpg", r"\bids?\b.*copy|images? \d+,? .*copy|entries")),)),
    "coco-polygon-pairs": Case((_THREE, Says((_OUTLINE, "annotation 1")))),
    "coco-size-strings": Case((_THREE, Refuses(("string",)))),
    "coco-two-categories-one-name": Case(
        (
            Reads({"train": 3}, 6, ("crack",)),
            Says((r"same name|one name|share|alike|(two|2|several) categories|name\w* .*(twice|repeat)",)),
        )
    ),
    "cvat-coco-default": Case((Reads({"train": 4}, 8),)),
    "cvat-masks-all-crowd": Case(
        (All((Says((r"(every|all) .*crowd|crowd.*(every|all|left out)",)), TrainsLoudly(("crowd",)))),)
    ),
    "cvat-yolo-1.1": Case((Reads({"train": 4}, 8, ("crack",)), Refuses((r"YOLO 1\.1|Darknet", "export")))),
    "fiftyone-coco": Case((Reads({"train": 4}, 8), Refuses((r"labels\.json", _HOW)))),
    "folders-upper-case-yolo": Case(
        (
            Reads({"train": 3, "val": 2}, 10),
            All((Refuses(("label",), lambda place: place.trained), Finds(("label file",)))),
        )
    ),
    "images-heic-avif": Case((Says((r"heic", r"avif", r"left out|not read|cannot be read|unreadable")),)),
    "label-name-case": Case(
        (
            Reads({"train": 3, "val": 2}, 10),
            Says((r"TRAIN0\.txt", r"train1\.TXT", r"train2\.jpg\.txt")),
        )
    ),
    "label-studio-yolo": Case((Reads({"train": 4}, 8, ("crack", "spalling")),)),
    "labelme-gbk": Case((Refuses((r"g\.json", r"UTF-?8")),)),
    "labelme-image-inside": Case(
        (Reads({"train": 2}, 4), Refuses((r"imageData|inside", r"extract|export|write|save|convert|labelme")))
    ),
    "labelme-other-shapes": Case((Reads({"train": 1}, 4), Says(("oriented_rectangle", "'?rotation", "quadrilateral")))),
    "labelme-same-names": Case(
        (
            Refuses((r"ambiguous|several|two|both",)),
            Judged("each site's labels lie on its own picture", special.same_names),
        )
    ),
    "labels-folder-misnamed": Case(
        (
            All((Finds(("label file",)), Refuses(("label",), lambda place: place.trained))),
            Refuses((r"label (file|folder)",)),
        )
    ),
    "links-to-folders": Case((Reads({"train": 4, "val": 2}, 12), Says(("link",))), special.make_link),
    "list-of-folders": Case((Reads({"train": 4, "val": 2}, 12),)),
    "list-one-missing": Case((Says(("train_extra",)), Refuses(("train_extra",)))),
    "list-twice": Case((Says((r"train0\.jpg", r"val0\.jpg")),)),
    "mask-16bit-65535": Case(
        (Reads(_MASKS, 7, share=(0.005, 0.5)), Refuses((r"65535", r"convert|save|8[- ]bits?|export|divide")))
    ),
    "mask-alpha-red": Case((Reads(_MASKS, share=(0.005, 0.5)), Refuses((r"alpha|transparen",)))),
    "mask-antialias": Case(
        (
            All((Reads(_MASKS, 7, share=(0.005, 0.5)), Judged("one class", special.one_class))),
            Refuses((r"grey|edge|smooth|antialias", r"labelmap\.txt|classes\.txt|convert|threshold|export")),
        )
    ),
    "mask-in-alpha": Case((Reads(_MASKS, share=(0.005, 0.5)), Refuses((r"alpha|transparen",)))),
    "mask-inverted": Case(
        (
            All(
                (
                    Reads(_MASKS, 7, share=(0.9, 1.0)),
                    Finds((r"nearly (everything|all)|invert|most of|mark|cover",)),
                )
            ),
        )
    ),
    "mask-jpeg-classes": Case(
        (Refuses(("JPEG",)), All((Says(("JPEG",)), TrainsLoudly((r"JPEG|no .*(object|label)",)))))
    ),
    "mask-one-colour": Case(
        (
            All((Reads({"train": 4}, 4, share=(0.005, 0.5)), Judged("without complaint", special.no_complaint))),
            Refuses(("colour",)),
        )
    ),
    "mask-two-colours": Case((Refuses(("colour", r"labelmap\.txt")),)),
    "names-not-utf8": Case(
        (Judged("info, check, train, val and predict work, or one line names the file", special.latin1),),
        special.make_latin1,
    ),
    "no-home": Case((Judged("every command works for a user without HOME", special.no_home),)),
    "oom-specks": Case((Judged("memory does not grow with the specks", special.specks),)),
    "rle-bytes-literal": Case((Reads({"train": 2}, 2), Says(("annotation 1", "annotation 2")))),
    "rle-floats": Case((Reads({"train": 2}, 2), Says(("annotation 1", "annotation 2")))),
    "rle-list-of-lists": Case((Reads({"train": 2}, 2), Says(("annotation 1", "annotation 2")))),
    "rle-size-swapped": Case((Says(("annotation 1", "annotation 2", r"size|swap|\[96, 64\]")),)),
    "roboflow-csv": Case((Reads({"train": 3}, 6, ("crack",)), Refuses((r"CSV", r"COCO|YOLO|VOC", r"export|download")))),
    "roboflow-darknet": Case(
        (Reads({"train": 3}, 6, ("crack",)), Refuses(("Darknet", r"COCO|YOLO|VOC", r"export|download")))
    ),
    "same-stem-two-endings": Case((Says((r"s0\.jpg", r"s0\.png", "mask")), Refuses((r"s0\.jpg", r"s0\.png")))),
    "telemetry": Case((Judged("no file below HOME outside segdet's own cache", special.telemetry),)),
    "tiff-16bit-planar": Case((Judged("the pixels of same_picture.png, or refused", special.planar),)),
    "tiff-minisblack": Case((Judged("the first three bands, or refused with bands and type", special.minisblack),)),
    "two-kinds-of-labels": Case((Says((r"instances_default\.json", "masks", "fire", "smoke")),)),
    "val-without-objects": Case(
        (Judged("refused at once, or weights and a word about it", special.nothing_to_measure),)
    ),
    "video-endings": Case((Judged("all three are predicted", special.endings),)),
    "video-vfr": Case((Judged("each frame's own time, or a word about the rate", special.frame_times),)),
    "voc-images-annotations": Case((Reads({"train": 4}, 8), Refuses((r"VOC", _HOW, "images", "annotations")))),
    "voc-lists-names-with-spaces": Case((Judged("3 images, classes Riß and spalling", special.voc_lists),)),
    "yaml-latin1": Case((Refuses((r"data\.yaml", "row 3|line 3")),)),
    "yaml-names-blank": _two_names_or_refused(),
    "yaml-names-booleans": Case((Reads({"train": 3, "val": 2}, 10, ("on", "off", "No", "null", "1e3")),)),
    "yaml-names-holes": _two_names_or_refused(),
    "yaml-names-list-of-maps": _two_names_or_refused(),
    "yaml-names-one-string": _two_names_or_refused(),
    "yaml-names-string-keys": _two_names_or_refused(),
    "yaml-nc-string": _two_names_or_refused(),
    "yolo-pose-labels": Case(
        (Refuses((r"kpt_shape|keypoint|pose",)), Judged("boxes from the first four numbers", special.pose_boxes))
    ),
}

EXPORTS: dict[str, Case] = {
    "bccd-voc": Case(
        (
            All(
                (
                    Reads({"train": 13, "val": 4}),
                    Says((r"not listed|in no list|unlisted", r"7|BloodImage_00007")),
                    Judged("one epoch trains", special.trains),
                )
            ),
        )
    ),
    "potato-cvat-coco": Case(
        (Refuses((r"instances_default\.json", r"not there|missing|none of", r"7562\.jpg|data_samples|50")),)
    ),
    "raccoon-voc": Case((All((Reads({"train": 16}, 16, ("raccoon",)), Judged("one epoch trains", special.trains))),)),
}


def folder_of_cases() -> Path:
    """The folder with one folder for each case."""
    return Path(os.environ.get("SEGDET_CASES") or ROOT.parent / "shared" / "cases")


def folder_of_exports() -> Path:
    """The folder with parts of real exports."""
    datasets = os.environ.get("SEGDET_DATASETS")
    return Path(datasets) / "exports" if datasets else ROOT.parent / "shared" / "data" / "exports"


def run(names: Sequence[str], work: Path) -> Iterator[Outcome]:
    """Judge the cases called `names` (all when empty), and every folder that no expectation is written for."""
    for home, cases in ((folder_of_cases(), CASES), (folder_of_exports(), EXPORTS)):
        there = sorted(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []
        for name in there:
            if names and name not in names:
                continue
            if name in cases:
                yield judge(name, cases[name], home / name, work / name)
            else:
                yield Outcome(name, "", "no expectation is written for this folder", False)
        for name in sorted(cases.keys() - set(there)):
            if there and (not names or name in names):
                yield Outcome(name, "", f"not in {home}", None)


def main() -> int:
    """Run the cases named on the command line, or all."""
    began = time.monotonic()
    if not folder_of_cases().is_dir():
        print(f"{folder_of_cases()}: no such folder; set SEGDET_CASES", file=sys.stderr)
        return 2
    os.environ["SEGDET_CACHE"] = tempfile.mkdtemp(prefix="segdet-cases-cache-")
    outcomes = []
    with tempfile.TemporaryDirectory(prefix="segdet-cases-") as work:
        Path(work).chmod(0o755)
        for outcome in run(sys.argv[1:], Path(work)):
            print(outcome.name, {True: "ok", False: "NOT", None: "skipped"}[outcome.holds], file=sys.stderr, flush=True)
            outcomes.append(outcome)
    print(table(outcomes))
    counts = [sum(outcome.holds is value for outcome in outcomes) for value in (True, False, None)]
    print(f"\n{counts[0]} ok, {counts[1]} not, {counts[2]} skipped, in {time.monotonic() - began:.0f} s")
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
