"""What a file is, by its first bytes: formats that are read, and those that are only known by name."""

from __future__ import annotations

import re

READ = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""Pillow's names of the image formats that are read. All are decoded inside the process; none starts a program."""

_KINDS = (  # offset, bytes, kind, name
    (0, b"\xff\xd8\xff", "image", "JPEG"),
    (0, b"\x89PNG", "image", "PNG"),
    (0, b"GIF8", "image", "GIF"),
    (0, b"BM", "image", "BMP"),
    (8, b"WEBP", "image", "WEBP"),
    (0, b"II*\0", "image", "TIFF"),
    (0, b"MM\0*", "image", "TIFF"),
    *((0, b"P%d%c" % (number, space), "image", "PPM") for number in range(1, 7) for space in b"\n\r\t #"),
    (4, b"ftypavif", "image", "AVIF"),
    (4, b"ftypavis", "image", "AVIF"),
    (4, b"ftypheic", "image", "HEIC"),
    (4, b"ftypmif1", "image", "HEIC"),
    (0, b"\0\0\0\x0cjP  ", "image", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "image", "JPEG 2000"),
    (0, b"\xff\x0a", "image", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL ", "image", "JPEG XL"),
    (0, b"DDS ", "image", "DDS"),
    (0, b"BLP1", "image", "BLP"),
    (0, b"BLP2", "image", "BLP"),
    (0, b"%!PS", "image", "PostScript"),
    (0, b"\xc5\xd0\xd3\xc6", "image", "PostScript"),
    (0, b"8BPS", "image", "PSD"),
    (0, b"<svg", "image", "SVG"),
    (0, b"II+\0", "image", "BigTIFF"),
    (0, b"MM\0+", "image", "BigTIFF"),
    (0, b"PK\x03\x04", "zip", "zip"),
    (0, b"PK\x05\x06", "zip", "zip"),  # one without members
    (257, b"ustar", "tar", "tar"),
    (0, b"\x1f\x8b", "gzip", "gzip"),
    (0, b"BZh", "bzip2", "bzip2"),
    (0, b"\xfd7zXZ", "xz", "xz"),
    (0, b"\0\0\x08\x01", "idx", "IDX"),  # bytes, 1 dimension: labels
    (0, b"\0\0\x08\x03", "idx", "IDX"),  # 3 dimensions: images
    (0, b"%PDF", "foreign", "PDF"),
    (0, b"\x89HDF\r\n\x1a\n", "foreign", "HDF5"),
    (512, b"\x89HDF\r\n\x1a\n", "foreign", "HDF5"),  # as MATLAB 7.3 writes it, below a text of its own
    (0, b"MATLAB 5.0", "mat", "MATLAB"),
    (0, b"MATLAB 7.3", "foreign", "MATLAB"),
    (0, b"PAR1", "foreign", "Parquet"),
    (0, b"ARROW1", "foreign", "Arrow"),
    (0, b"ORC", "foreign", "ORC"),
    (0, b"Obj\x01", "foreign", "Avro"),
    (0, b"7z\xbc\xaf\x27\x1c", "foreign", "7z"),
    (0, b"Rar!", "foreign", "RAR"),
    (0, b"\x28\xb5\x2f\xfd", "foreign", "Zstandard"),
    (0, b"\x04\x22\x4d\x18", "foreign", "LZ4"),
    (0, b"\x93NUMPY", "foreign", "NumPy"),
    (0, b"SQLite format 3", "foreign", "SQLite"),
    (16, b"\xde\xc0\xef\xbe", "foreign", "LMDB"),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(dp?\d*\n|\}q\x00")  # protocols 2 to 5, 0, 1: a dict comes first
_LIST = re.compile(rb"(\xef\xbb\xbf)?filename[,;\t]label([,;\t\r\n]|$)")

_IMAGE_NAME = re.compile(
    r"\.(jpe?g|jpe|jfif|png|gif|bmp|dib|webp|tiff?|ppm|pgm|pbm|pnm"  # those that are read
    r"|avif|heic|heif|jp2|j2k|jxl|dds|blp|eps|ps|psd|svg|tga|spi|ico|pcx|xpm|xbm|wmf|emf|fits?)$",
    re.IGNORECASE,
)
_FOREIGN_NAME = re.compile(r"\.(tfrecords?|mdb|lmdb|beton|npz|npy|mat|hdf5|h5|parquet|arrow|zst)$", re.IGNORECASE)


def named_as_image(name: str) -> bool:
    """Whether a file's name says that it is an image, of whatever format."""
    return _IMAGE_NAME.search(name) is not None


def identify(head: bytes, name: str = "") -> tuple[str | None, str | None]:
    """(kind, format's name) by a file's first 1024 bytes, and by the end of its name if they do not say it.

    kind: image, zip, tar, gzip, bzip2, xz, pickle, idx, mat, list, foreign (a format that holds data and is not read)
    or None.
    """
    kind, label = next(((k, label) for at, magic, k, label in _KINDS if head.startswith(magic, at)), (None, None))
    if _PICKLE.match(head):
        return "pickle", "pickle"
    if _LIST.match(head):
        return "list", "CSV"
    if (match := _FOREIGN_NAME.search(name)) and (kind is None or match[1].lower() == "npz"):
        return "foreign", match[1].upper()
    return kind, label
