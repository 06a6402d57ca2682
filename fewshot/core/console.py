"""What every command shares: one-line errors, exit statuses, a console.

Imports no torch, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from fewshot.core import process
from fewshot.core.errors import DONE, FAILED, INTERRUPTED, USER_ERROR, USERS_TO_MEND, UserError, nearest
from fewshot.version import __version__

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Prints a default if it says something, unlike "(default: None)", and the help does not. Keeps paragraphs."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        said = not any(action.default is each for each in (None, False, True)) and action.default not in ("", [], [""])
        if not said or "(default:" in (action.help or ""):
            return action.help
        return super()._get_help_string(action)

    def _fill_text(self, text: str, width: int, indent: str) -> str:  # argparse's own makes one paragraph of several
        return "\n\n".join(super(_Formatter, self)._fill_text(part, width, indent) for part in text.split("\n\n"))


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, like every other error here."""

    def __init__(self, **kwargs) -> None:
        kwargs.setdefault("formatter_class", _Formatter)
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(**kwargs)
        if self.prog.startswith("fewshot."):
            self.add_argument("--version", action="version", version=f"fewshot {__version__}")

    def parse_args(self, args=None, namespace=None):  # argparse's own, with a hint at what was meant
        args = sys.argv[1:] if args is None else list(args)
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}{self._hint(args, rest[0])}")
        return found

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see python -m {self.prog} --help)")

    def _hint(self, args: list[str], wrong: str) -> str:
        """What may be meant by `wrong`, an argument that was not understood; "" if that is unknown."""
        if wrong.startswith("-"):
            flags = [flag.strip("-") for flag in self._option_string_actions]
            near = nearest(wrong.partition("=")[0].strip("-"), flags)
            return f"; did you mean --{near}?" if near else ""
        before = args[args.index(wrong) - 2 : args.index(wrong)]
        action = self._option_string_actions.get(before[0]) if len(before) == 2 else None
        return f"; {before[0]} takes one value" if action and action.nargs is None else ""


def summary(doc: str | None) -> str:
    """What a command does, from its module's docstring: the part after the colon. "" under python -OO."""
    return (doc or "").partition(": ")[2]


def add_trust(parser: argparse._ActionsContainer) -> None:
    """The flag by which a user allows code that a run folder names (core/trust.py)."""
    parser.add_argument(
        "--trust", action="append", default=[], metavar="NAME",
        help="module or package of your own whose code may run when a run folder names it; may be repeated. Not needed"
        " for code that you have trained with on this machine and not changed since",
    )  # fmt: skip


def terminal() -> Console:
    """Standard output: long lines are left to the terminal, text is printed as it is.

    Names come from files and other people: what would control the terminal is shown as an escape sequence (`visible`).
    """
    from rich.console import Console

    class Visible(Console):
        def render_str(self, text: str, **options: Any) -> Text:  # through which rich passes every text
            return super().render_str(visible(text), **options)

    return Visible(highlight=False, markup=False, soft_wrap=True)


@contextmanager
def counting(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with how many more are done: a bar on stderr if it is a terminal; else nothing."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, advance=done)


def visible(text: str) -> str:
    r"""Text with its control characters written out, `\x1b`: those that move a cursor, colour, or reverse what is read.

    Also what no terminal can show: halves of characters from undecodable file names. Tabs and line ends stay.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def run(
    main: Callable[[list[str] | None], None], argv: list[str] | None = None, own_process: bool | None = None
) -> int:
    """Call a command and return its exit status: 0 done, 1 its output was lost, 2 wrong input, 130 interrupted.

    `own_process`: whether the process is there for this command alone; by default, if no `argv` is given. Unforeseen
    exceptions pass through: Python prints their traceback and exits with 1.
    """
    if own_process is None:
        own_process = argv is None
    if own_process:
        process.claim()
    status = _status(main, argv)
    if own_process and (lost := process.lost_output()):
        print(f"error: standard output could not be written ({lost}): it is not complete", file=sys.stderr)
        return status or FAILED
    return status


def _status(main: Callable[[list[str] | None], None], argv: list[str] | None) -> int:
    try:
        main(argv)
    except UserError as error:
        return _complain(str(error))
    except OSError as error:
        remedy = USERS_TO_MEND.get(error.errno or 0)
        if remedy is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _complain(f"{where}{remedy}")
    except KeyboardInterrupt as interrupt:
        print(visible(str(interrupt)) or "interrupted", file=sys.stderr)
        return INTERRUPTED
    return DONE


def _complain(text: str) -> int:
    print("error: " + visible(" ".join(text.split())), file=sys.stderr)
    return USER_ERROR
