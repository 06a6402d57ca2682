"""Render `data/glyphs.npz`, the embedded data set, from the typefaces that matplotlib ships.

    python scripts/build_glyphs.py [--out data/glyphs.npz] [--sheet sheet.png]

    alphabets -> characters -> one of each outline -> drawn in every typeface that has it
              -> slant, weight, affine and elastic jitter, contrast, blur -> 32x32, 16 gray levels

A class is a character; an image is decided by (character, image number) alone, so any class can
be built by itself, and building twice gives the same file, byte for byte. A dropped character is
printed with the one that it coincides with.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import math
import unicodedata
import zipfile
from pathlib import Path

import matplotlib
import numpy as np
import PIL
import scipy
from matplotlib import ft2font
from PIL import Image
from scipy import ndimage

from fewshot.data.specs import glyphs

SIZE = 32
IMAGES = 24  # a class: a 5-shot 15-query episode takes 20
SEED = 2024
COINCIDE = 0.82  # correlation above which two size-normalised outlines count as one character

# Whole alphabets to a split: the test scripts are unseen in training. Earlier ones claim an outline
# first, so the order within `train` only says under which name a shared letter is kept.
ALPHABETS = {
    "train": {
        "latin": "0041-007A 00C0-017F 0250-02AF",
        "greek": "0370-03FF",
        "cyrillic": "0400-045F 048A-04FF",
        "arabic": "0621-064A 066E-06D3",
        "tifinagh": "2D30-2D6F",
    },
    "val": {"georgian": "10A0-10FF", "nko": "07CA-07EA"},
    "test": {"armenian": "0531-0586", "hebrew": "05D0-05EA", "lao": "0E80-0EDF"},
}

TYPEFACES = Path(matplotlib.get_data_path()) / "fonts/ttf"
# Mixed, so that a character's first images differ most. matplotlib's Computer Modern files are left
# out: of these alphabets they have only a part of Latin, and they have a licence of their own.
FACES = (
    "DejaVuSans",
    "DejaVuSerif",
    "DejaVuSansMono-BoldOblique",
    "DejaVuSerif-BoldItalic",
    "DejaVuSans-Oblique",
    "STIXGeneral",
    "DejaVuSans-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSansMono",
    "STIXGeneralBolIta",
    "DejaVuSerif-Bold",
    "DejaVuSans-BoldOblique",
    "STIXGeneralItalic",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-Bold",
    "STIXGeneralBol",
)
REFERENCE = FACES[0]  # the only typeface that covers every alphabet: outlines are compared in it
MASTER = 64  # side of the upright drawing that the images are warped from

LICENCE_HEAD = """\
glyphs.npz holds small distorted pictures of characters. They were drawn by scripts/build_glyphs.py
with matplotlib {matplotlib} (FreeType {freetype}, numpy {numpy}, scipy {scipy}, Pillow {pillow}), in these
of the typefaces that matplotlib ships; none of the typefaces' files is contained in it:

    {faces}

The DejaVu typefaces come under the Bitstream Vera and Arev licences, the STIX typefaces under the
SIL Open Font License 1.1. Their texts, as matplotlib ships them, follow in full.
"""


def main() -> None:
    """Choose, render, write; print what was dropped and how much is left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=glyphs.FILE)
    parser.add_argument("--sheet", type=Path, help="also write a contact sheet: eight images of each class")
    args = parser.parse_args()

    alphabet_of = choose_characters()
    splits = {}
    for split, alphabets in ALPHABETS.items():
        named = sorted((class_name(a, char), char) for char, a in alphabet_of.items() if a in alphabets)
        levels = np.stack([render_class(char) for _, char in named])
        splits[split] = ([name for name, _ in named], levels)
        print(f"{split}: {len(named)} classes x {IMAGES} images")
    write(args.out, splits)
    write_licence(args.out.with_suffix(".LICENSE.txt"))
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, fingerprint {glyphs.read(args.out).fingerprint}")
    if args.sheet:
        write_sheet(args.sheet, splits)


# -- which characters -------------------------------------------------------------------------


def choose_characters() -> dict[str, str]:
    """character -> alphabet, for characters whose outline no earlier one has."""
    kept: dict[str, str] = {}
    outlines = np.empty((0, MASTER * MASTER))
    for alphabet, blocks in ((a, b) for alphabets in ALPHABETS.values() for a, b in alphabets.items()):
        dropped = []
        for char in letters(blocks):
            shape = outline(char)
            likeness = outlines @ shape
            if likeness.max(initial=0) > COINCIDE:
                twin = list(kept)[likeness.argmax()]
                dropped.append(f"{char}={twin}")
                continue
            kept[char] = alphabet
            outlines = np.vstack([outlines, shape])
        count = sum(a == alphabet for a in kept.values())
        print(f"{alphabet}: {count} kept, {len(dropped)} coincide with an earlier one: {' '.join(dropped)}")
    return kept


def letters(blocks: str) -> list[str]:
    """Letters of the code blocks ("0041-007A ...") that the reference typeface draws.

    Those that decompose (accents, ligatures, positional forms) are left out, as near-copies of their base.
    """
    ranges = [[int(end, 16) for end in block.split("-")] for block in blocks.split()]
    chars = [chr(code) for first, last in ranges for code in range(first, last + 1)]
    return [
        char
        for char in chars
        if unicodedata.category(char) in ("Lu", "Ll", "Lo")
        and not unicodedata.decomposition(char)
        and ord(char) in characters_of(REFERENCE)
    ]


def outline(char: str) -> np.ndarray:
    """(MASTER * MASTER,) unit vector: the size-normalised drawing, blurred, mean removed.

    The dot product of two is their correlation. The blur forgives what jitter would hide anyway.
    """
    flat = ndimage.gaussian_filter(draw(char, REFERENCE), 1.5).ravel()
    flat -= flat.mean()
    return flat / np.linalg.norm(flat)


def class_name(alphabet: str, char: str) -> str:
    """Such as greek/U+03B8."""
    return f"{alphabet}/U+{ord(char):04X}"


# -- drawing ----------------------------------------------------------------------------------


@functools.cache
def open_face(face: str) -> ft2font.FT2Font:
    """The typeface's file, opened once."""
    return ft2font.FT2Font(str(TYPEFACES / f"{face}.ttf"))


@functools.cache
def characters_of(face: str) -> frozenset[int]:
    """Code points that the typeface really has: any other would be drawn as its missing-glyph box."""
    return frozenset(open_face(face).get_charmap())


@functools.lru_cache(maxsize=len(FACES))
def draw(char: str, face: str) -> np.ndarray:
    """(MASTER, MASTER) in [0, 1]: the upright character, its longer side filling the square."""
    font = open_face(face)
    font.set_size(2 * MASTER, 72)
    font.set_text(char, 0, flags=ft2font.LoadFlags.NO_HINTING)
    font.draw_glyphs_to_bitmap()
    ink = np.asarray(font.get_image())
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scale = MASTER / max(ink.shape)
    height, width = (max(1, round(side * scale)) for side in ink.shape)
    small = Image.fromarray(ink).resize((width, height), Image.Resampling.BOX)
    square = np.zeros((MASTER, MASTER))  # float64: rounding to 16 levels then hides what processors do differently
    top, left = (MASTER - height) // 2, (MASTER - width) // 2
    square[top : top + height, left : left + width] = np.asarray(small) / 255
    return square


def render_class(char: str) -> np.ndarray:
    """(IMAGES, SIZE, SIZE) uint8 gray levels, the typefaces that have the character in turn."""
    faces = [face for face in FACES if ord(char) in characters_of(face)]
    return np.stack([render(char, faces[number % len(faces)], number) for number in range(IMAGES)])


def render(char: str, face: str, number: int) -> np.ndarray:
    """(SIZE, SIZE) uint8 gray levels: one jittered image of the character."""
    rng = np.random.default_rng([SEED, ord(char), number])
    ink = stroke(draw(char, face), rng)
    ink = ndimage.map_coordinates(ink, sample_points(rng), order=1, mode="constant")
    ink = ink.reshape(SIZE, 2, SIZE, 2).mean((1, 3))  # two samples a pixel each way: no aliasing
    ink = ndimage.gaussian_filter(ink, rng.uniform(0.0, 0.8))
    paper, contrast = rng.uniform(0.0, 0.2), rng.uniform(0.5, 0.8)
    gray = paper + contrast * ink
    return np.rint(gray * (glyphs.LEVELS - 1)).astype(np.uint8)


def stroke(ink: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Thinner or bolder: the drawing cut again at a random height of its blurred edge."""
    soft = ndimage.gaussian_filter(np.pad(ink, 4), 1.5)[4:-4, 4:-4]
    return np.clip((soft - rng.uniform(0.25, 0.55)) * 4 + 0.5, 0, 1)


def sample_points(rng: np.random.Generator) -> np.ndarray:
    """(2, 2 SIZE, 2 SIZE): where in the master drawing each half-pixel of the image looks.

    Rotation, shear (the slant), scale by axis, shift, and a smooth elastic displacement.
    """
    angle = math.radians(rng.uniform(-20, 20))
    shear = rng.uniform(-0.3, 0.3)
    zoom = rng.uniform(0.55, 0.9)
    stretch = rng.uniform(0.8, 1.25)
    height, width = zoom * math.sqrt(stretch), zoom / math.sqrt(stretch)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    forward = turn @ np.array([[1, 0], [shear, 1]]) @ np.diag([height, width])  # (row, column)

    half = 2 * SIZE
    shift = rng.uniform(-0.08, 0.08, 2)  # of the image's side
    grid = (np.indices((half, half), np.float64).reshape(2, -1) + 0.5) / half - 0.5
    points = np.linalg.inv(forward) @ (grid - shift[:, None])
    points = (points.reshape(2, half, half) + 0.5) * MASTER - 0.5
    return points + elastic(rng, half, cells=5, reach=rng.uniform(0, 3.5))


def elastic(rng: np.random.Generator, side: int, cells: int, reach: float) -> np.ndarray:
    """(2, side, side): random displacements on a coarse grid, interpolated by splines between."""
    coarse = rng.normal(0, reach, (2, cells, cells))
    at = np.linspace(0, cells - 1, side)
    where = np.stack(np.meshgrid(at, at, indexing="ij"))
    return np.stack([ndimage.map_coordinates(axis, where, order=3, mode="nearest") for axis in coarse])


# -- the files --------------------------------------------------------------------------------


def write(path: Path, splits: dict[str, tuple[list[str], np.ndarray]]) -> None:
    """An npz without time stamps: np.savez would record the moment of building."""
    source = "rendered by scripts/build_glyphs.py from the DejaVu and STIX typefaces that matplotlib ships"
    about = {
        "source": source,
        "fingerprint": glyphs.assemble(splits, source).former_fingerprint,
        "versions": versions(),
        "faces": FACES,
        "seed": SEED,
    }
    arrays = {"about": np.array(json.dumps(about))}
    for name, (classes, levels) in splits.items():
        arrays |= {f"{name}_classes": np.array(classes), f"{name}_levels": levels}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.save(buffer, array, allow_pickle=False)
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(member, buffer.getvalue(), compresslevel=9)


def versions() -> dict[str, str]:
    """What decides the pixels; a rebuild with the same ones gives the same file."""
    return {
        "matplotlib": matplotlib.__version__,
        "freetype": ft2font.__freetype_version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "pillow": PIL.__version__,
    }


def write_licence(path: Path) -> None:
    """What the pictures were made from, and the typefaces' licences word for word."""
    parts = [LICENCE_HEAD.format(faces="\n    ".join(sorted(FACES)), **versions())]
    for name in ("LICENSE_DEJAVU", "LICENSE_STIX"):
        text = (TYPEFACES / name).read_text(encoding="utf-8")
        parts.append(f"{' ' + name + ' ':=^100}\n\n{text.rstrip()}\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def write_sheet(path: Path, splits: dict[str, tuple[list[str], np.ndarray]]) -> None:
    """A contact sheet to look at: eight images of each class, four classes a row."""
    levels = np.concatenate([levels[:, :8] for _, levels in splits.values()])
    levels = levels[: len(levels) // 4 * 4].reshape(-1, 4, 8, SIZE, SIZE)
    sheet = levels.transpose(0, 3, 1, 2, 4).reshape(-1, 4 * 8 * SIZE)
    Image.fromarray(sheet * np.uint8(glyphs.STEP)).save(path)


if __name__ == "__main__":
    main()
