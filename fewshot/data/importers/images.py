"""An image file's bytes -> pixels of one size. The only place where a foreign image is opened."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from fewshot.data.importers.kinds import READ, identify
from fewshot.data.importers.limits import Limits, above
from fewshot.data.importers.silence import no_stderr

RESIZING = "whole image to {0}x{0}, aspect ratio not kept, Pillow's Lanczos filter"

_ORIENTED = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}  # where Pillow keeps what may say "turn me"
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of TIFF 6.0: whole tiles are decoded, however small the image is
_TIFF = (b"II", b"MM")  # how such files begin
_16_BIT = ("I;16", "I;16L", "I;16B", "I;16N")


_SCAN, _MOST_SCANS = b"\xff\xda", 200  # progressive JPEGs have about 10

LIMITS = Limits()


class Unreadable(ValueError):
    """Why an image is not read, in a few words, to be put in brackets after its name."""


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow from warning about single files: their size is checked here, before pixels are decoded.

    Enter it once, around all decoding: it changes settings of the process.
    """
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def decode(data: bytes, limits: Limits = LIMITS) -> np.ndarray:
    """(height, width, 3) uint8 RGB pixels of `picture`, which says what is read. Raises Unreadable, which says why."""
    return np.asarray(picture(data, limits))


def picture(data: bytes, limits: Limits = LIMITS) -> Image.Image:
    """An image in RGB, as a person sees it.

    It is turned as its EXIF data say. Transparent pixels are put on white. Of 16 bits, the high 8 are taken, as Pillow
    does for 16-bit colours; of an animation, the first picture. Raises Unreadable, which says why.
    """
    if not data:
        raise Unreadable("empty")
    if (scans := data.count(_SCAN)) > _MOST_SCANS and data.startswith(b"\xff\xd8"):
        raise Unreadable(f"a JPEG of {scans:,} scans, each of which would be decoded")
    try:
        # libtiff itself prints what it thinks of a damaged file
        with no_stderr() if data[:2] in _TIFF else nullcontext(), Image.open(io.BytesIO(data), formats=READ) as image:
            _refuse_large(image, limits.pixels)
            return _as_seen(image)
    except Unreadable:
        raise
    except Image.UnidentifiedImageError:
        raise Unreadable(_refusal(data)) from None
    except Exception as error:  # a plug-in raises whatever its parser met
        raise Unreadable(f"damaged: {_short(error)}") from None


def _refuse_large(image: Image.Image, most: int) -> None:
    sizes = [image.size]
    if isinstance(image, TiffImageFile):
        sizes.append((image.tag_v2.get(_TILE_WIDTH, 0), image.tag_v2.get(_TILE_LENGTH, 0)))
    for width, height in sizes:
        if width * height > most:
            size = above(f"{width:,}x{height:,} px", f"{most:,} pixels", width * height / most)
            raise Unreadable(size)


def _as_seen(image: Image.Image) -> Image.Image:
    """RGB."""
    image.load()
    if not _ORIENTED.isdisjoint(image.info):
        image = _turned(image)
    if image.mode in _16_BIT or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode == "F" or image.mode.startswith("I"):
        raise Unreadable("32-bit pixels, which have no stated range: convert it to 8 or 16 bits")
    if image.has_transparency_data:
        above = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", above.size, "white"), above).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _turned(image: Image.Image) -> Image.Image:
    """The image, turned as its EXIF data say; unchanged if they are damaged, as many cameras' are."""
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:  # the parser of a foreign file again
        return image
    turned.format = image.format
    return turned


def _refusal(data: bytes) -> str:
    _, name = identify(data[:1024])
    if name is None:
        return "no image"
    return "damaged" if name in READ else f"{name}, which is not read: convert it to PNG or JPEG"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def fit(pixels: np.ndarray, size: int) -> np.ndarray:
    """(height, width, 3) -> (size, size, 3) uint8: untouched if it has that size already, else as in RESIZING."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS))
