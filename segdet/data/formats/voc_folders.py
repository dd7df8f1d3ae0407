"""Which folders of a dataset hold VOC's images, XML files, masks and lists, whatever they are called.

Pascal VOC's own names decide first. Otherwise the content does: the folder with VOC's XML files, and the folder with the
images of the same names, which may be the same one. Both are looked for in the dataset's folder and in its split folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from segdet.data.formats.base import images_under
from segdet.data.formats.layout import Tree, files_in, folders_in
from segdet.data.formats.xml_files import root_tag
from segdet.data.images import is_image

_ASKED = 50  # XML files looked into per folder, should the first ones be damaged
_USUAL = {"jpegimages": 3, "images": 2, "image": 1, "imgs": 1, "img": 1}


class Place(NamedTuple):
    """A folder, and whether the folders below belong to it."""

    path: Path
    deep: bool = True

    def images(self) -> list[Path]:
        """The image files in it, sorted."""
        return images_under(self.path) if self.deep else sorted(path for path in self.path.iterdir() if is_image(path))

    def xml_files(self) -> list[Path]:
        """The XML files in it, sorted."""
        if not self.deep:
            return files_in(self.path, ".xml")
        return sorted(f for f in self.path.rglob("*") if f.suffix.lower() == ".xml" and not f.name.startswith("."))


class Folders(NamedTuple):
    """The folders of one part of a dataset; None where there is no such folder.

    split: the split that the part is, or None where lists or folders below decide.
    images, annotations: pictures and XML files; equal where they lie side by side.
    classes, objects: masks by class and by object. lists: ImageSets.
    """

    split: str | None
    images: Place
    annotations: Place | None
    classes: Path | None = None
    objects: Path | None = None
    lists: Path | None = None

    def evidence(self, root: Path) -> str:
        """What the layout was recognised by."""
        images = self.images.path.relative_to(root).as_posix()
        if self.annotations == self.images:
            return "VOC annotations beside the images" + (f" in {images}" if images != "." else "")
        annotations = self.annotations.path if self.annotations is not None else None
        parts = [part for part in (annotations, self.classes, self.objects) if part is not None]
        return f"{images} with {', '.join(part.relative_to(root).as_posix() for part in parts)}"


def find(root: Path) -> list[Folders]:
    """The parts of a dataset in VOC's format; an empty list when it is in another."""
    own = _own_names(root)
    if own is not None:
        return [own]
    parts: list[Folders] = []
    taken: list[Path] = []
    for split, folder in Tree(root).splits().items():
        part = _pair(folder, split)
        if part is not None:
            parts.append(part)
            taken.append(folder)
    top = _pair(root, None, taken)
    return [*parts, top] if top is not None else parts


def _own_names(root: Path) -> Folders | None:
    tree = Tree(root)
    images, annotations = tree.at("JPEGImages"), tree.at("Annotations")
    classes = tree.at("SegmentationClass")
    if classes is None or not images_under(
        classes
    ):  # older versions of labelme2voc write arrays there, masks elsewhere
        classes = tree.at("SegmentationClassPNG") or classes
    if images is None or (annotations is None and classes is None):
        return None
    objects = tree.first("SegmentationObjectPNG", "SegmentationObject")
    xml = Place(annotations) if annotations is not None else None
    return Folders(None, Place(images), xml, classes, objects, tree.at("ImageSets"))


def _pair(folder: Path, split: str | None, taken: Sequence[Path] = ()) -> Folders | None:
    """The place with VOC's XML files in a folder, and the place with the most images of the same names."""
    places = [Place(folder, deep=False), *(Place(child) for child in folders_in(folder) if child not in taken)]
    xml_files = {place: files for place in places if _is_voc(files := place.xml_files())}
    if not xml_files:
        return None
    best: tuple[int, int, Place, Place] | None = None
    for images in places:
        pictures = images.images()
        for xml, files in xml_files.items():
            if xml == images:
                count = len({p.with_suffix("") for p in pictures} & {f.with_suffix("") for f in files})
            else:
                count = len({p.stem for p in pictures} & {f.stem for f in files})
            usual = _USUAL.get(images.path.name.lower(), 0)  # decides between copies of the same pictures
            if count and (best is None or (count, usual) > best[:2]):
                best = (count, usual, images, xml)
    if best is None:
        return None
    return Folders(split, best[2], best[3], lists=Tree(folder).at("ImageSets"))


def _is_voc(files: Sequence[Path]) -> bool:
    return any(root_tag(file) == "annotation" for file in files[:_ASKED])
