"""python -m fewshot.prepare: a foreign copy of a data set -> the memory-mapped store."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fewshot.core.console import Parser, run
from fewshot.core.errors import UserError, unknown

DESCRIPTION = """\
Turn images into the store that training reads: <data root>/<name>/{train,val,test}.npy and dataset.json.
The layout is recognised by content: a zip or tar archive a class, class folders, images/ with Ravi and
Larochelle's CSVs, learn2learn / Ren pickles, MetaOptNet pickles, raw ILSVRC folders or tars (with those CSVs).
Run again, it verifies the store and changes nothing."""


def parser() -> Parser:
    result = Parser(prog="fewshot.prepare", description=DESCRIPTION)
    result.add_argument("name", help="mini-imagenet, or a name of your own together with --splits")
    result.add_argument(
        "--from", dest="sources", action="append", type=Path, required=True, metavar="PATH",
        default=None, help="folder or file that holds the images; several may each hold a part",
    )  # fmt: skip
    result.add_argument(
        "--splits", type=Path, metavar="CSV",
        help="for your own data set: columns split,class (every image of a class),"
        " or filename,label,split (the images named); splits are train, val, test",
    )  # fmt: skip
    result.add_argument(
        "--data-root", type=Path, default=Path(os.environ.get("FEWSHOT_DATA") or "data"), metavar="DIR",
        help="where the store goes; FEWSHOT_DATA sets the default",
    )  # fmt: skip
    result.add_argument("--size", type=int, default=84, help="height and width of the stored images, in pixels")
    return result


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)
    _check(args.name, args.splits, args.size)

    from fewshot.data.importers import build, lists  # not for --help: numpy and Pillow take their time

    wanted = lists.read_splits(args.splits) if args.splits else lists.mini_imagenet()
    started = time.perf_counter()
    with _progress() as begin:
        prepared = build.prepare(args.name, args.sources, wanted, args.data_root, args.size, begin)
    verb = "prepared" if prepared.fresh else "already prepared, verified, nothing changed:"
    print(f"{verb} {prepared.folder} ({time.perf_counter() - started:.1f} s)")
    _report(prepared.record)


def _check(name: str, splits: Path | None, size: int) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UserError(f"a data set's name is letters, digits and . _ - only, not {name!r}")
    if name == "glyphs":
        raise UserError("glyphs is built in and needs no preparing: choose another name for your own data set")
    if name == "mini-imagenet" and splits:
        raise UserError("mini-imagenet has its own splits: leave --splits away, or choose another name")
    if name != "mini-imagenet" and not splits:
        raise UserError(f"{unknown('data set', name, ['mini-imagenet'])} For one of your own, give --splits CSV.")
    if not 8 <= size <= 1024:
        raise UserError(f"--size {size}: from 8 to 1024 pixels")


@contextmanager
def _progress() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Yields begin(what, images), which starts a bar and returns what moves it on; silent unless people watch."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:

        def begin(what: str, images: int) -> Callable[[int], None]:
            task = progress.add_task(f"{what} images", total=images)
            return lambda done: progress.advance(task, done)

        yield begin


def _report(record: dict) -> None:
    for split, entry in record["splits"].items():
        images, height, width, _ = entry["shape"]
        print(f"  {split:5}  {len(entry['classes']):4} classes  {images:7,} images of {height}x{width}")
    print(f"  from {record['source']}; fingerprint {record['fingerprint'][:16]}")
    for note in record["notes"]:
        print(f"  note: {note}")


if __name__ == "__main__":
    raise SystemExit(run(main))
