"""A folder of images as the samples of a graph that does its preprocessing itself: it takes pixels, 0 to 255."""

from collections.abc import Iterator
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hwfault.errors import FileError, GraphError
from hwfault.graph.run.graph_input import GraphInput, Samples
from hwfault.image_files import class_names, decode, image_names

_LARGEST = 4 << 30
_COLOURS = (1, 3)


class _Pixels(NamedTuple):
    """How a graph takes an image: the shape of one, which of its axes holds the colours, and how many these are."""

    shape: tuple[int, ...]
    axis: int

    @property
    def colours(self) -> int:
        return self.shape[self.axis]

    @property
    def side(self) -> tuple[int, int]:
        """Height and width."""
        height, width = (extent for axis, extent in enumerate(self.shape) if axis != self.axis)
        return height, width


def read_images(folder: Path, wanted: GraphInput, first: int | None = None) -> Samples:
    """The images in FOLDER/CLASS/IMAGE with their labels, or in FOLDER/IMAGE without, or the `first` so many.

    Samples are the first image of every class, then the second of every class, and so on, by their sorted names. A
    label is the number of the class among the sorted names of the folders; where all of these are whole numbers, it is
    that number. A pixel is a number from 0 to 255 in the type of the graph's input, RGB or, where that has one colour,
    gray: nothing is resized or scaled. Raises GraphError for an input that takes no images, FileError for images of
    another size, coloured ones where gray is wanted, and files that are no images.
    """
    pixels = _pixels(wanted)
    names, classes = _listed(folder)
    chosen = list(islice(names, first))
    size = len(chosen) * int(np.prod(pixels.shape)) * wanted.dtype.itemsize
    if size > _LARGEST:
        raise FileError(
            f"{folder}: its images need {size} bytes of memory, expected at most {_LARGEST}; take --samples"
        )
    inputs = np.empty((len(chosen), *pixels.shape), wanted.dtype)
    for place, (_, file) in enumerate(chosen):
        inputs[place] = _read(file, pixels)
    if classes is None:
        return Samples(inputs, None)
    labels = np.array([label for label, _ in chosen], np.int64)
    are_numbers = all(map(_is_number, classes))
    return Samples(inputs, labels, None if are_numbers else classes)


def _pixels(wanted: GraphInput) -> _Pixels:
    """How a graph takes images; raises GraphError where it takes none, or leaves open which."""
    shape = () if wanted.shape is None else wanted.shape[1:]
    whole = tuple(extent for extent in shape if extent is not None)
    axes = [axis for axis in (0, 2) if len(whole) == 3 and whole[axis] in _COLOURS]
    if len(whole) < len(shape) or len(axes) != 1 or not (wanted.dtype == np.uint8 or wanted.dtype.kind == "f"):
        told = ", ".join("any" if extent is None else str(extent) for extent in shape)
        raise GraphError(
            f"the input {wanted.name!r} takes {wanted.dtype} of shape ({told}) for a sample, expected pixels as uint8 "
            "or floats, (colours, height, width) or (height, width, colours) with 1 or 3 colours; write the samples "
            "into an .npz file"
        )
    return _Pixels(whole, axes[0])


def _listed(folder: Path) -> tuple[Iterator[tuple[int, Path]], tuple[str, ...] | None]:
    """Labels and files in the order of the samples, and the classes; labels are 0 where there are no classes."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if visible and not any(path.is_dir() for path in visible):
        return iter([(0, folder / name) for name in image_names(folder)]), None
    classes = class_names(folder)
    are_numbers = all(map(_is_number, classes))
    columns = []
    for place, name in enumerate(classes):
        label = int(name) if are_numbers else place
        columns.append([(label, folder / name / image) for image in image_names(folder / name)])
    return (one for row in zip_longest(*columns) for one in row if one is not None), classes


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _read(file: Path, pixels: _Pixels) -> NDArray[Any]:
    """The pixels of an image, in the shape that the graph takes."""
    found = np.array(decode(file), np.uint8)  # (height, width, 3)
    if found.shape[:2] != pixels.side:
        raise FileError(
            f"{file}: has {found.shape[1]} x {found.shape[0]} pixels, but the graph takes {pixels.side[1]} x "
            f"{pixels.side[0]}; resize the images before"
        )
    if pixels.colours == 1:
        if (found != found[:, :, :1]).any():
            raise FileError(f"{file}: is coloured, but the graph takes images of one colour; make them gray before")
        found = found[:, :, :1]
    return np.moveaxis(found, 2, pixels.axis)
