"""fewshot, or python -m fewshot: lists the commands, and calls one: `fewshot train ...`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

from fewshot.core import console
from fewshot.core.errors import unknown
from fewshot.version import __version__

COMMANDS = {
    "prepare": "bring images into the store, once",
    "train": "train a network, select on validation, evaluate on test",
    "sweep": "train every configuration of a grid, several at once, and compare them",
    "watch": "follow a run that another process trains, to its end",
    "evaluate": "score trained runs under another protocol, or with another head",
    "compare": "say what runs prove of each other, and what not",
    "leaderboard": "gather runs into one ranked CSV, and pages that show it",
    "show": "draw pictures: masks, class activation maps, activations, curves",
    "list": "list what there is: components, data sets, recipes, task lists",
    "describe": "explain one of them: what it does, its options, their defaults",
}


def main(argv: list[str] | None = None) -> int:
    """Run the command that `argv` names, or list the commands; returns the exit status."""
    given = sys.argv[1:] if argv is None else argv
    if argv is None and os.getcwd() not in sys.path:  # as with python -m: the user's modules are there
        sys.path.insert(0, os.getcwd())
    name, rest = (given[0], given[1:]) if given else ("--help", [])
    if name in ("-h", "--help", "help"):
        print(_overview())
        return console.DONE
    if name == "--version":
        print(f"fewshot {__version__}")
        return console.DONE
    if name not in COMMANDS:
        return console.run(_refuse, [name])
    return console.run(importlib.import_module(f"fewshot.{name}").main, rest, own_process=argv is None)


def parser() -> argparse.ArgumentParser:
    """All commands in one parser, from which shtab writes a shell's completion."""
    together = argparse.ArgumentParser(prog="fewshot", description="Few-shot learning on identical tasks.")
    commands = together.add_subparsers()
    for name, does in COMMANDS.items():
        own = importlib.import_module(f"fewshot.{name}").parser()
        commands.add_parser(name, help=does, parents=[own], add_help=False, conflict_handler="resolve")
    return together


def _overview() -> str:
    lines = [f"  fewshot {name:<12} {does}" for name, does in COMMANDS.items()]
    head = "fewshot: few-shot learning on identical tasks, with honest intervals."
    foot = "Each answers --help, and is python -m fewshot.NAME as well. fewshot --version says which this is."
    return "\n".join([head, "", *lines, "", foot])


def _refuse(argv: list[str] | None) -> None:
    (name,) = argv or [""]
    raise unknown("command", name, COMMANDS)


if __name__ == "__main__":
    raise SystemExit(main())
