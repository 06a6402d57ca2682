"""An image file's bytes -> pixels of one size."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

RESIZING = "whole image to {0}x{0}, aspect ratio not kept, Pillow's Lanczos filter"


def decode(data: bytes) -> np.ndarray | None:
    """(height, width, 3) uint8 RGB pixels; None where they are unreadable."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.asarray(image.convert("RGB"))
    # Pillow's own ways to say so: a plug-in raises what its parser met.
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError):
        return None


def fit(pixels: np.ndarray, size: int) -> np.ndarray:
    """(height, width, 3) -> (size, size, 3) uint8: untouched where it has that size already, else as in RESIZING."""
    if pixels.shape[:2] == (size, size):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS))
