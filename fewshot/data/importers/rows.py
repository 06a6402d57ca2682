"""The rows of a user's CSV file -> the files that they name, exactly.

`cat/0000.jpg` is the file 0000.jpg in a folder cat, wherever that is below --from; `0000.jpg` is the file of that name,
in the folder of the row's class if there are several. A label need not be a folder's name. But if a folder has the name
of one class of the list, and the row says another, one of the two is wrong.
"""

from __future__ import annotations

from fewshot.core.errors import UserError
from fewshot.data.importers.items import Item, some
from fewshot.data.importers.lists import FilePath, Lists
from fewshot.data.importers.sources import ImageName, Sources


class Rows:
    """Finds the files of one class after the other, and checks that none is named twice."""

    def __init__(self, wanted: Lists, sources: Sources) -> None:
        self._wanted = wanted
        self._sources = sources
        self._lines: dict[str, int] = {}  # a file's origin -> the line that names it

    def images(self, split: str, cls: str) -> dict[ImageName, list[Item]]:
        """Image -> its file (several: copies, to be compared). Raises UserError, naming the row, if one is wrong."""
        found: dict[ImageName, list[Item]] = {}
        wrong = []
        for path, line in self._wanted.rows[split, cls].items():
            where = f"{self._wanted.origin}: line {line}"
            try:
                items = self._files_of(where, path, cls)
                for item in items:
                    if self._lines.setdefault(item.origin, line) != line:
                        raise UserError(f"{where} names {item.origin}, and so does line {self._lines[item.origin]}")
            except UserError as error:
                wrong.append(str(error))
                continue
            folders = path[:-1] or items[0].parts[1:-1]
            name: ImageName = (items[0].name, *folders)
            found[name] = items
        if wrong:
            more = f" (and {len(wrong) - 1:,} more rows of class {cls})" if len(wrong) > 1 else ""
            raise UserError(wrong[0] + more)
        return found

    def _files_of(self, where: str, path: FilePath, cls: str) -> list[Item]:
        written = "/".join(path)
        matching = self._sources.matching(path)
        if not matching:
            raise UserError(f"{where}: no image {written} is below --from{self._sources.remark()}")
        if len(names := sorted({item.name for item in matching})) > 1:
            raise UserError(f"{where}: {written} may be {some(names)}: write the ending")
        folders = {item.origin: {name for name, _ in self._wanted.classes_of(item.parts[:-1])} for item in matching}
        if len(path) == 1 and len(matching) > 1:
            matching = [item for item in matching if cls in folders[item.origin]] or matching
        for item in matching:
            if folders[item.origin] and cls not in folders[item.origin]:
                raise UserError(
                    f"{where} labels {item.origin} {cls!r}, but its folder is {some(sorted(folders[item.origin]))}, a"
                    " class of this list, too: correct the label, or move the file"
                )
        return matching
