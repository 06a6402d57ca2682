"""python -m fewshot.leaderboard: gather the results of many runs into one ranked CSV, and pages that show it."""

from __future__ import annotations

import argparse
import os
import re
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from fewshot.core.console import Parser, run, summary, terminal
from fewshot.core.errors import UserError
from fewshot.core.files import destination, locked, write_output


def parser() -> Parser:
    parser = Parser(prog="fewshot.leaderboard", description=summary(__doc__))
    parser.add_argument(
        "--runs", default="runs", metavar="FOLDER", help="folder of run folders, also those deeper in it"
    )
    parser.add_argument(
        "--csv",
        default="leaderboard.csv",
        metavar="FILE",
        help="the file to write, or none; classification rows go to NAME-classification.csv beside it",
    )
    parser.add_argument("--markdown", metavar="FILE", help="also write Markdown tables")
    parser.add_argument("--html", metavar="FILE", help="also write one page for the browser; it needs no network")
    parser.add_argument("--title", default=None, help="title of that page (default: Few-shot leaderboard)")
    parser.add_argument("--link", metavar="URL", help="address of a paper or a repository, shown on that page")
    parser.add_argument(
        "--append",
        action="store_true",
        help="keep the rows that the CSV has, and rank all by ci95; safe for several processes at once",
    )
    parser.add_argument(
        "--no-aggregate", action="store_true", help="one row for each run, instead of one for all seeds"
    )
    return parser


def main(argv: list[str] | None = None) -> None:
    args = parser().parse_args(argv)

    from fewshot.reports.boards import as_csv, as_html, as_text
    from fewshot.reports.boards.gathering import gather, unfinished
    from fewshot.reports.boards.leaderboard import aggregate, of_kind
    from fewshot.reports.boards.of_images import IMAGES
    from fewshot.reports.boards.of_tasks import FEWSHOT
    from fewshot.reports.boards.ranking import rank
    from fewshot.reports.boards.standing import merge, newest, on_common_tasks

    files = _files(args)
    csv = files.get("csv")
    tables = {FEWSHOT: csv, IMAGES: csv.with_name(f"{csv.stem}-classification{csv.suffix}")} if csv else {}
    page = _page(args, files, tables.get(IMAGES))
    outputs = [("csv", path, kind.mark) for kind, path in tables.items()]
    marks = {"markdown": as_text.MARK, "html": as_html.MARK}
    outputs += [(flag, files[flag], mark) for flag, mark in marks.items() if flag in files]
    _refuse_foreign(outputs)
    gathered, damaged = gather(Path(args.runs))
    with _alone(csv):
        before = tables.items() if args.append else ()
        scores = merge([*(score for kind, path in before for score in as_csv.read(kind, path)), *gathered])
        kept, replaced = (scores, []) if args.no_aggregate else newest(scores)
        kept, elsewhere = on_common_tasks(kept)
        rows = rank(aggregate(kept, over_seeds=not args.no_aggregate), paired=not args.append)
        written = {
            path: as_csv.render(kind, some)
            for kind, path in tables.items()
            if (some := of_kind(kind, rows)) or path.exists()  # an earlier file must not pass for that of these runs
        }
        if "markdown" in files:
            written[files["markdown"]] = as_text.render(rows)
        if "html" in files:
            written[files["html"]] = as_html.render(rows, **page)
        for path, data in {path: text.encode() for path, text in written.items()}.items():
            write_output(path, data)

    console = terminal()
    as_text.print_board(console, rows)
    for name, why in damaged.items():
        console.print(f"warning: {name} is left out: {why}")
    as_text.print_doubts(console, gathered, kept)
    if older := [row for row in rows if row["csv_version"] == "1"]:
        console.print(
            f"warning: {len(older)} rows of {csv} are of an older version of the file. They are kept, but never"
            " pooled with new runs; write the file again from all run folders, without --append, to renew them."
        )
    as_text.print_left_out(console, replaced, elsewhere, Path(args.runs))
    if begun := unfinished(Path(args.runs)):
        console.print(f"Left out, because they are not finished: {', '.join(begun)}.")
    console.print(f"{len(rows)} row{'s' * (len(rows) != 1)}" + f" in {', '.join(map(str, written))}" * bool(written))


def _files(args: argparse.Namespace) -> dict[str, Path]:
    """The files to write, by their flags. Raises UserError if one has no name, or there is no CSV to append to."""
    files = {}
    for name in ("csv", "markdown", "html"):
        given = getattr(args, name)
        if given is not None and not Path(given).name:
            raise UserError(f"--{name} {given!r}: give a file, or none")
        if given not in (None, "none"):
            files[name] = Path(given)
    if args.append and "csv" not in files:
        raise UserError("--append keeps the rows of a CSV: give --csv FILE")
    return files


def _refuse_foreign(outputs: Sequence[tuple[str, Path, str]]) -> None:
    """Raise UserError if a file cannot be written, was not written by this command, or is given twice.

    outputs: flags, their files, and what such a file contains if it is ours.
    """
    flags: dict[Path, str] = {}
    for flag, path, mark in outputs:
        real = destination(path)
        if real in flags:
            raise UserError(f"--{flags[real]} and --{flag} name one file twice, {path}; give each its own")
        flags[real] = flag
        if real.exists() and real.stat().st_size:
            with open(real, "rb") as file:
                if mark.encode() not in file.read(1000):
                    raise UserError(f"{path} is not a leaderboard of ours; move it away, or give another --{flag}")


@contextmanager
def _alone(csv: Path | None) -> Iterator[None]:
    """Keep other processes from writing the same CSV, so that none loses what another has just added."""
    if csv is None:
        yield
        return
    real = destination(csv)
    real.parent.mkdir(parents=True, exist_ok=True)
    with locked(real.with_name(f".{real.name}.lock"), wait=True):
        yield


def _page(args: argparse.Namespace, files: Mapping[str, Path], images: Path | None) -> dict[str, str]:
    """What the page shows besides the rows. Raises UserError if there is no page, or the link is not an address."""
    given = {name: value for name in ("title", "link") if (value := getattr(args, name)) is not None}
    if given and "html" not in files:
        raise UserError(f"--{next(iter(given))} is for the page: give --html FILE, too")
    for name, value in given.items():
        if re.search("[\ud800-\udfff]", value):
            raise UserError(f"--{name} {value!r} is no text in UTF-8")
    if not given.get("link", "https://").startswith(("https://", "http://")):
        raise UserError(f"--link {args.link}: give an address that begins with https://")
    if "html" in files and images:
        for name, path in (("csv", files["csv"]), ("images_csv", images)):
            relative = os.path.relpath(path.absolute(), files["html"].absolute().parent)
            given[name] = urllib.parse.quote(os.fsencode(Path(relative).as_posix()))
    return given


if __name__ == "__main__":
    raise SystemExit(run(main))
