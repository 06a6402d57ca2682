"""python -m fewshot.prepare: a foreign copy of a data set -> the memory-mapped store."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fewshot.core.console import Parser, counting, run, visible
from fewshot.core.errors import UserError, unknown

if TYPE_CHECKING:
    from fewshot.data import DatasetSpec

DESCRIPTION = """\
Turn images into the store that training reads: <data root>/<name>/{train,val,test}.npy and dataset.json.
The layout is recognised by content: a zip or tar archive a class, class folders, images/ with Ravi and
Larochelle's CSVs, learn2learn / Ren pickles, MetaOptNet pickles, raw ILSVRC folders or tars (with those CSVs);
CIFAR, MNIST, SVHN, Tiny ImageNet and ImageNet as they are published (of ImageNet, lists of its files are written).
Run again, it verifies the store and changes nothing."""


def parser() -> Parser:
    result = Parser(prog="fewshot.prepare", description=DESCRIPTION, formatter_class=argparse.HelpFormatter)
    result.add_argument(
        "name",
        help="a name that `fewshot list datasets` shows, a name for your own, or the dotted name of your specification",
    )
    result.add_argument(
        "--from", dest="sources", action="append", type=Path, required=True, metavar="PATH",
        help="folder or file with the images; may be repeated if each holds a part",
    )  # fmt: skip
    result.add_argument(
        "--splits", type=Path, metavar="CSV",
        help="for your own data set: columns split,class (every image of a class), or filename,label,split (the images"
        " named); splits are train, val, test. Without it: folders train/, val/, test/ of class folders in PATH",
    )  # fmt: skip
    result.add_argument(
        "--data-root", type=Path, default=Path(os.environ.get("FEWSHOT_DATA") or "data"), metavar="DIR",
        help="where the store goes (default: $FEWSHOT_DATA, else data)",
    )  # fmt: skip
    result.add_argument(
        "--size", type=int, metavar="N",
        help="height and width of the stored images, in pixels (default: the specification's; 84 for one of your own)",
    )  # fmt: skip
    result.add_argument(
        "--limits", type=int, default=1, metavar="N",
        help="let files ask for N times as much as is plausible: images of more than 90 million pixels or 256 MB,"
        " archives that unpack to more than 1 GB and 100 times their size, pickles of more than 2 million steps",
    )  # fmt: skip
    return result


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.data.importers import build  # not for --help: NumPy and Pillow are slow to import
    from fewshot.data.importers.limits import Limits
    from fewshot.data.spec import SIZES

    for source in args.sources:
        if not os.path.lexists(source):
            raise UserError(f"--from {source}: no such file or folder")
    spec = _specification(args.name, args.splits, args.sources, args.data_root)
    if args.size is not None and not SIZES[0] <= args.size <= SIZES[1]:
        raise UserError(f"--size {args.size}: from {SIZES[0]} to {SIZES[1]} pixels")
    if args.limits < 1:
        raise UserError(f"--limits {args.limits}: 1 or more")
    limits = Limits().times(args.limits)
    started = time.perf_counter()
    prepared = build.prepare(spec, args.sources, args.splits, args.data_root, args.size, counting, limits, _say)
    print(f"{prepared.outcome} {prepared.folder} ({time.perf_counter() - started:.1f} s)")
    _report(prepared.record, spec.licence)


def _say(text: str) -> None:
    print(visible(text), flush=True)


def _specification(name: str, splits: Path | None, sources: list[Path], root: Path) -> DatasetSpec:
    """The specification: a known data set's, the user's own by its dotted name, or one made only of name and splits."""
    from fewshot.data import DatasetSpec, specs
    from fewshot.data.names import SPLITS
    from fewshot.data.store import is_store

    own = DatasetSpec(name)  # also checks the name
    spec = specs.find(name)
    if spec is None:
        if specs.is_dotted(name) and not is_store(root / name):
            raise UserError(
                f"cannot import {name.rpartition('.')[0]}, in which {name} would be: is its folder on PYTHONPATH? For a"
                " data set of your own without a specification, choose a name without such a dot"
            )
        has_folders = any((source / split).is_dir() for source in sources for split in SPLITS)
        if not splits and not has_folders:
            raise UserError(
                f"{unknown('data set', name, [known for known in specs.names() if not specs.get(known).load])} For one"
                " of your own, give --splits CSV, or keep its classes in folders train/, val/ and test/ below --from."
            )
    chosen = spec or own
    known = specs.lookalike(chosen.name)
    if chosen.load or (known == chosen.name and specs.get(known).load):
        raise UserError(f"{chosen.name} is built in and needs no preparing: choose another name for your own data set")
    if known not in (None, chosen.name) and not is_store(root / chosen.name):
        raise UserError(f"{chosen.name} is easily taken for {known}: write that, or choose another name")
    if splits and (chosen.splits is not None or chosen.splits_itself):
        raise UserError(f"{chosen.name} has its own splits: leave --splits out, or choose another name")
    return chosen


def _report(record: dict, licence: str) -> None:
    for split, entry in record["splits"].items():
        images, height, width, _ = entry["shape"]
        print(f"  {split:5}  {len(entry['classes']):4} classes  {images:7,} images of {height}x{width}")
    print(f"  from {record['source']}; fingerprint {record['fingerprint'][:16]}")
    for note in record["notes"]:
        print(f"  note: {visible(' '.join(note.split()))}")
    if licence:
        print(f"  licence: {licence}")


if __name__ == "__main__":
    raise SystemExit(run(main))
