"""Other people's copies of a data set -> classes of images. One file a source format, recognised by content.

    items.py     a file, in a folder or an archive      archives.py   zip, tar, tar.gz
    lists.py     which class is in which split          ilsvrc.py     raw ImageNet's names
    pickles.py   learn2learn / Ren, and MetaOptNet      unpickle.py   reads pickles, executes nothing
    kinds.py     what a file is, by content         images.py     a file's bytes -> pixels
    plan.py      which images are taken             build.py      checks, decodes and writes the store
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.data.importers import archives
from fewshot.data.importers.items import Item, files_below
from fewshot.data.importers.kinds import identify, named_as_image
from fewshot.data.importers.lists import Lists, read_ravi
from fewshot.data.importers.pickles import Pickle
from fewshot.data.spec import IMPORTERS

_WNID = re.compile(r"n\d{8}")


class Sources:
    """What the `--from` folders and files hold of the wanted classes. No image is read yet.

    pickled:   class -> the pickles that hold it
    listed:    class -> image names that lists give it: the user's, and Ravi and Larochelle's in the sources
    importers: what the images may come as, of DatasetSpec.importers; other files are left alone
    kinds:     what was met, for dataset.json
    empty:     files without content, for complaints
    foreign:   files of a format that holds data and is not read, likewise

    Archives stay open until `files` is closed. Raises UserError for a source that is missing, empty or damaged.
    """

    def __init__(
        self, paths: Iterable[Path], wanted: Lists, files: ExitStack, importers: Collection[str] = IMPORTERS
    ) -> None:
        self.pickled: dict[str, list[Pickle]] = {}
        self.listed: dict[str, frozenset[str]] = {}
        for (_, cls), names in wanted.files.items():
            self.listed[cls] = self.listed.get(cls, frozenset()) | names
        self.importers = importers
        self.kinds: set[str] = set()
        self.empty: list[str] = []
        self.foreign: list[str] = []
        self._images: dict[tuple[str | None, str], dict[str, list[Item]]] = {}
        self._loose: dict[str, list[Item]] = {}  # images in no class's folder or archive, by name
        self._wanted = wanted
        self._files = files
        for path in paths:
            self._add(path)
        if not wanted.by_folder:
            self._settle_loose()

    def images(self, split: str, cls: str) -> dict[str, list[Item]]:
        """Image name -> the files of that name (several: copies, to be compared) of a class in a split.

        Where folders do not say the split, every image of the class.
        """
        return self._images.get((split if self._wanted.by_folder else None, cls), {})

    def _add(self, path: Path) -> None:
        if not path.exists():
            raise UserError(f"--from {path}: no such file or folder")
        items = list(files_below(str(path)))
        if not items:
            raise UserError(f"--from {path}: the folder is empty")
        for item in items:
            self._visit(item)

    def _visit(self, item: Item) -> None:
        """Sort one file; archives are entered, anything unknown is left alone."""
        if any(part.startswith(".") or part == "__MACOSX" for part in item.parts[1:]):
            return
        kind = self._kind(item)
        if kind == "image":
            if not {"images", "ilsvrc"}.isdisjoint(self.importers):
                self._add_image(item)
        elif kind in ("zip", "tar"):
            self._enter(item, kind)
        elif kind in archives.COMPRESSED:
            self._visit(archives.decompressed(item, kind, self._files))
        elif kind == "pickle" and "pickles" in self.importers:
            pickle = Pickle(item, self._wanted.splits)
            self.kinds.add(pickle.format)
            for cls in pickle.counts:
                self.pickled.setdefault(cls, []).append(pickle)
        elif kind == "list":
            self.kinds.add("Ravi and Larochelle's lists")
            for cls, names in read_ravi(item).items():
                self.listed[cls] = self.listed.get(cls, frozenset()) | names

    def _kind(self, item: Item) -> str | None:
        if named_as_image(item.name):
            return "image"  # there are many, so none is opened yet; decoding names those that are not
        head = item.read(1024)
        if not head:
            self.empty.append(item.origin)
        kind, label = identify(head, item.name)
        if kind == "foreign":
            self.foreign.append(f"{item.origin} ({label})")
        return kind

    def _add_image(self, item: Item) -> None:
        split, cls = self._wanted.split_of(item.parts)
        names = self._loose if cls is None else self._images.setdefault((split, cls), {})
        names.setdefault(item.name, []).append(item)
        if not item.packed:
            self.kinds.add("image files")

    def _enter(self, item: Item, kind: str) -> None:
        name = archives.stem(item.name)
        if "ilsvrc" in self.importers and _WNID.fullmatch(name) and name not in self._wanted.classes:
            return  # one of ImageNet's other 900
        self.kinds.add(f"{kind} archives")
        for member in archives.members(item, kind, self._files):
            self._visit(member)

    def _settle_loose(self) -> None:
        class_of = {name: cls for cls, names in self.listed.items() for name in names}
        for name, items in self._loose.items():
            cls = class_of.get(name, name[:9] if "ilsvrc" in self.importers else "")  # ImageNet's begin with the class
            if cls in self._wanted.classes:
                self._images.setdefault((None, cls), {}).setdefault(name, []).extend(items)
