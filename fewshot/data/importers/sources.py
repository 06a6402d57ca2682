"""What the `--from` folders and files hold of the wanted classes. No image is read yet."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path, PurePath

from fewshot.core.errors import UserError
from fewshot.data.importers import archives, ilsvrc
from fewshot.data.importers.arrays import Pixels
from fewshot.data.importers.cifar import Cifar, Cifar10
from fewshot.data.importers.idx import Idx
from fewshot.data.importers.items import Item, files_below, some
from fewshot.data.importers.kinds import identify, named_as_image
from fewshot.data.importers.limits import Limits
from fewshot.data.importers.lists import FilePath, Lists, read_ravi
from fewshot.data.importers.pickles import Pickle
from fewshot.data.importers.svhn import Svhn
from fewshot.data.importers.tinyimagenet import Files, TinyImageNet
from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

_OF_ONE_SET: dict[str, type[Cifar | Cifar10 | Idx | Svhn | TinyImageNet]] = {
    "cifar": Cifar, "cifar10": Cifar10, "idx": Idx, "svhn": Svhn, "tiny-imagenet": TinyImageNet,
}  # fmt: skip
_WNID = re.compile(r"n\d{8}")

ImageName = tuple[str, ...]
"""An image within its class: the file's name, then the folders by which it differs from others of that name."""


class Sources:
    """Classes of images, and what else was met.

    pickled: class -> the pickles that hold it
    own:     (split, class) -> its images, in a format or a layout that is the data set's own
    listed:  class -> image names that lists in the sources give it, if the specification says that they count
    kinds:   what was met, for dataset.json
    unread:  files without content, or of a format that holds data and is not read, for messages

    Archives stay open until `files` is closed. Raises UserError for a source that is missing, empty or damaged, and if
    folders leave it open which class an image belongs to.
    """

    def __init__(
        self, paths: Iterable[Path], wanted: Lists, files: ExitStack, spec: DatasetSpec, limits: Limits
    ) -> None:
        self.pickled: dict[str, list[Pickle]] = {}
        self.kinds: set[str] = set()
        self.unread: list[str] = []
        self.own: dict[tuple[str, str], Pixels | Files] = {}
        self.listed: dict[str, frozenset[str]] = {}
        self._images: dict[tuple[str | None, str], dict[ImageName, list[Item]]] = {}
        self._loose: list[Item] = []  # images in no class's folder or archive
        self._outside: list[str] = []  # likewise, if folders say the splits
        self._all: list[Item] = []  # images, if rows of a CSV name them
        self._places: dict[str, dict[tuple, set[ImageName]]] = {}  # class -> where its folders are -> images there
        self._known: dict[tuple[str, ...], tuple[str, int] | None] = {}  # folders -> class and its position
        self._wanted = wanted
        self._files = files
        self._limits = limits
        self._spec = spec
        importers = [importer() for name, importer in _OF_ONE_SET.items() if name in spec.importers]
        self._importers = {kind: each for each in importers for kind in each.kinds}
        for number, path in enumerate(paths):
            self._source = number
            self._add(path)
        for importer in importers:
            if found := importer.classes(spec, wanted.splits):
                self.own |= found
                self.kinds.add(importer.title)
        if wanted.by_folder:
            self._refuse_nested()
        else:
            self._settle_loose()
            self._refuse_homonyms()

    def images(self, split: str, cls: str) -> dict[ImageName, list[Item]]:
        """Image -> its file (several: copies, to be compared) of a class in a split.

        If folders do not say the split: every image of the class.
        """
        return self._images.get((split if self._wanted.by_folder else None, cls), {})

    def matching(self, path: FilePath) -> list[Item]:
        """The images at a path, which may begin at any folder. If it has no ending, any ending matches."""
        found = [item for item in self._by_name.get(path[-1], ()) if item.is_at(path)]
        return found or [item for item in self._by_stem.get(path[-1], ()) if item.is_at((*path[:-1], item.name))]

    def remark(self) -> str:
        """What to add if something is missing: the files that may hold it but were not read."""
        return f" (not read: {some(self.unread)})" if self.unread else ""

    def notes(self) -> list[str]:
        """What a user should know about images that do not belong to the data set."""
        left = self._outside
        return [f"In no class's folder in train/, val/ or test/, and left out: {some(left)}."] if left else []

    @cached_property
    def _by_name(self) -> dict[str, list[Item]]:
        return _grouped((item.name, item) for item in self._all)

    @cached_property
    def _by_stem(self) -> dict[str, list[Item]]:
        return _grouped((PurePath(item.name).stem, item) for item in self._all)

    def _add(self, path: Path) -> None:
        if not path.is_symlink() and not path.exists():
            raise UserError(f"--from {path}: no such file or folder")
        items = list(files_below(str(path), self._limits))
        if not items:
            raise UserError(f"--from {path}: the folder is empty")
        for item in items:
            self._visit(item)

    def _visit(self, item: Item) -> None:
        """Sort one file; archives are entered, anything unknown is left alone."""
        if any(part.startswith(".") or part == "__MACOSX" for part in item.parts[1:]):
            return
        kind = self._kind(item)
        importers = self._spec.importers
        if kind in self._importers:
            if not self._importers[kind].add(item):
                self.unread.append(f"{item.origin} ({kind})")
        elif kind == "image":
            if not {"images", "ilsvrc"}.isdisjoint(importers):
                self._add_image(item)
        elif kind in ("zip", "tar"):
            self._enter(item, kind)
        elif kind in archives.COMPRESSED:
            self._visit(archives.decompressed(item, kind, self._files))
        elif kind == "pickle" and "pickles" in importers:
            pickle = Pickle(item, self._wanted.splits)
            self.kinds.add(pickle.format)
            for cls in pickle.counts:
                self.pickled.setdefault(cls, []).append(pickle)
        elif kind == "list" and self._spec.lists:
            self.kinds.add("Ravi and Larochelle's lists")
            for cls, names in read_ravi(item).items():
                self.listed[cls] = self.listed.get(cls, frozenset()) | names

    def _kind(self, item: Item) -> str | None:
        if named_as_image(item.name):
            return "image"  # there are many, so none is opened yet; decoding names those that are not
        head = item.head(1024)
        kind, label = identify(head, item.name)
        if not head or kind == "foreign" or (kind == "mat" and kind not in self._importers):
            self.unread.append(f"{item.origin} ({label or 'empty'})")
        return kind

    def _add_image(self, item: Item) -> None:
        if not item.packed:
            self.kinds.add("image files")
        if self._wanted.rows:
            self._all.append(item)
        if self._wanted.by_folder:
            split, cls = item.parts[1:3] if len(item.parts) > 3 else ("", "")
            if cls in self._wanted.splits.get(split, ()):
                self._images.setdefault((split, cls), {}).setdefault((item.name, *item.parts[3:-1]), []).append(item)
            else:
                self._outside.append(item.origin)
            return
        folders = item.parts[:-1]
        if folders not in self._known:
            self._known[folders] = next(iter(self._wanted.classes_of(folders)), None)
        known = self._known[folders]
        if known is None:
            self._loose.append(item)
            return
        cls, position = known
        above, below = folders[1:position], folders[position + cls.count("/") + 1 :]
        # train/cat/1.jpg and test/cat/1.jpg are two images; cat.zip and cat/, in which both are 1.jpg, have copies.
        name = (item.name, *(part for part in above if part in SPLITS), *below)
        self._images.setdefault((None, cls), {}).setdefault(name, []).append(item)
        between = (part for at, part in enumerate(above, 1) if part not in SPLITS and at not in item.shells)
        place = (self._source, *between)
        self._places.setdefault(cls, {}).setdefault(place, set()).add(name)

    def _enter(self, item: Item, kind: str) -> None:
        name = archives.stem(item.name)
        if "ilsvrc" in self._spec.importers and _WNID.fullmatch(name) and name not in self._wanted.classes:
            return  # one of ImageNet's other 900
        self.kinds.add(f"{kind} archives")
        for member in archives.members(item, kind, self._files):
            self._visit(member)

    def _settle_loose(self) -> None:
        class_of = {name: cls for cls, names in self.listed.items() for name in names}
        raw = "ilsvrc" in self._spec.importers
        for item in self._loose:
            cls = class_of.get(item.name, ilsvrc.class_of(item.name) if raw else "")
            if cls in self._wanted.classes:
                self._images.setdefault((None, cls), {}).setdefault((item.name,), []).append(item)

    def _refuse_nested(self) -> None:
        """Omniglot's train/Greek holds character01, character02, ...: a class each, or all one class?"""
        for (split, cls), images in self._images.items():
            inner = sorted({name[1] if len(name) > 1 else "" for name in images})
            if len(inner) > 1 and "" not in inner:
                raise UserError(
                    f"{split}/{cls} holds folders of images ({some(inner)}), each of which may be a class: say it with"
                    f" --splits, by rows such as {split},{cls}/{inner[0]} (a class each) or {split},{cls} (one class)"
                )

    def _refuse_homonyms(self) -> None:
        """Greek/character01 and Latin/character01 are not one class just because their folders have the same name."""
        listed = self.listed.keys() | {cls for _, cls in self._wanted.rows}
        for cls, places in self._places.items():
            if self._spec.images_per_class or cls in listed:
                continue  # the number or the names of the images tell
            first, *others = places.items()
            for place, names in others:
                if place[0] == first[0][0] and names.isdisjoint(first[1]):
                    one, two = ("/".join((*where[1:], cls)) for where in (first[0], place))
                    raise UserError(
                        f"class {cls} may be {one} or {two}: if these are classes of their own, write so in the splits;"
                        " if they are parts of one class, give each with a --from of its own"
                    )


def _grouped(pairs: Iterable[tuple[str, Item]]) -> dict[str, list[Item]]:
    groups: dict[str, list[Item]] = {}
    for key, item in pairs:
        groups.setdefault(key, []).append(item)
    return groups
