"""The rows of the papers' tables that recipes reproduce: fewshot/recipes/papers/*.toml, read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from fewshot import recipes as recipe_files
from fewshot.config import TrainConfig
from fewshot.defaults import configure


@dataclass(frozen=True)
class Row:
    """One number of a table, and the recipe that reproduces it."""

    recipe: str
    paper: float | None
    """In per cent; None if we do not have it."""
    baseline: str | None
    """The recipe without what this one adds, with which it is compared."""

    @property
    def name(self) -> str:
        """Of its run folders, without the seed."""
        return self.recipe.replace("/", "-")

    @property
    def config(self) -> TrainConfig:
        """Its configuration."""
        return configure(recipe=self.recipe)


@dataclass(frozen=True)
class Table:
    """A table, or a part of one. `name` is what it is called; `measure` says which way is better."""

    name: str
    where: str
    what: str
    measure: Literal["error", "accuracy"]
    rows: tuple[Row, ...]


def tables() -> list[Table]:
    """All tables of all papers, paper by paper."""
    return [_table(name, written) for name in recipe_files.papers() for written in recipe_files.paper(name)["tables"]]


def every_row() -> list[Row]:
    """Each recipe once: some are in several tables."""
    return list({row.recipe: row for table in tables() for row in table.rows}.values())


def chosen(names: list[str]) -> list[Table]:
    """The whole tables whose names begin with one of `names`, and of the others the rows whose recipes do.

    A complete name, such as `TD-1-CIFAR-10`, means that one alone, and not `TD-1-CIFAR-100` too.
    """
    whole = {table.name for table in tables()} | {row.recipe for row in every_row()}

    def meant(text: str) -> bool:
        return any(text == name if name in whole else text.startswith(name) for name in names)

    rows = {table: tuple(row for row in table.rows if meant(table.name) or meant(row.recipe)) for table in tables()}
    return [dataclasses.replace(table, rows=its) for table, its in rows.items() if its]


def _table(paper: str, written: dict) -> Table:
    recipes = [f"{paper}/{row[0]}" for table in recipe_files.paper(paper)["tables"] for row in table["rows"]]
    rows = [
        Row(f"{paper}/{recipe}", number[0] if number else None, _baseline(f"{paper}/{recipe}", recipes))
        for recipe, *number in written["rows"]
    ]
    return Table(*(written[key] for key in ("name", "where", "what", "measure")), tuple(rows))


def _baseline(recipe: str, recipes: list[str]) -> str | None:
    """The longest other recipe that this one begins with."""
    shorter = [each for each in recipes if recipe.startswith(f"{each}+")]
    return max(shorter, key=len, default=None)
