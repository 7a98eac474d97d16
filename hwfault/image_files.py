"""Images in files that are not trusted, and folders with one of images for each class."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwfault.errors import FileError
from hwfault.inputs import check_regular

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".gif", ".tif", ".tiff")
# those that hold pixels alone: others can name files or run programs (EPS)
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "GIF", "TIFF")
PIXELS = 1 << 26
"""The most that an image may have."""


def decode(path: Path) -> "Image.Image":
    """The RGB image in a file of a known format; raises FileError, also for more than 67 million pixels.

    The number of pixels is looked at before memory is taken for them.
    """
    from PIL import Image  # of the extra `measure`

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # about metadata, which is not used
            check_regular(path)
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > PIXELS:
                    raise FileError(f"{path}: has {image.width} x {image.height} pixels, expected {PIXELS} at most")
                return image.convert("RGB")
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise FileError(f"{path}: has too many pixels, expected {PIXELS} at most") from None
    except FileError:
        raise
    except Exception as error:  # what decoders raise for damaged files has no common type
        reason = str(error) or type(error).__name__
        raise FileError(f"{path}: is not an image that can be decoded ({reason}); replace or remove it") from error


def class_names(folder: Path) -> tuple[str, ...]:
    """The folders in one, sorted, of which each has the images of a class; raises FileError for what else lies there.

    Hidden files are passed over.
    """
    with _scanned(folder) as entries:
        found = [(entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith(".")]
    if stray := sorted(name for name, is_folder in found if not is_folder):
        raise FileError(f"{folder / stray[0]}: is not a folder, expected one folder for each class; move it elsewhere")
    if not found:
        raise FileError(f"{folder}: is empty, expected one folder of images for each class")
    return tuple(sorted(name for name, _ in found))


def image_names(folder: Path) -> list[str]:
    """The images in a folder, sorted; raises FileError for what is none by its name, and where there are none."""
    with _scanned(folder) as entries:
        found = [(entry.name, entry.is_file()) for entry in entries if not entry.name.startswith(".")]
    for name, is_file in found:
        if not is_file or not name.lower().endswith(SUFFIXES):
            kinds = ", ".join(SUFFIXES)
            raise FileError(f"{folder / name}: is not an image by its name, expected files that end in {kinds}")
    if not found:
        raise FileError(f"{folder}: holds no images, expected one or more of each class")
    return sorted(name for name, _ in found)


def _scanned(folder: Path) -> Any:
    try:
        return os.scandir(folder)
    except OSError as error:
        raise FileError(f"{folder}: cannot be read ({error.strerror or error})") from error
