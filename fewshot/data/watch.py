"""Whether the files of a prepared data set stay unchanged while a process reads them."""

from __future__ import annotations

from pathlib import Path

from fewshot.core.errors import UserError
from fewshot.data.dataset import Dataset


class Watch:
    """Remembers the files of a data set; one that is not prepared, such as the embedded glyphs, has none."""

    def __init__(self, dataset: Dataset) -> None:
        names = list(dataset.splits) if dataset.root else []
        paths = (Path(dataset.root or "") / f"{name}{ending}" for name in names for ending in (".npy", ".txt"))
        self._stamps = {path: _stamp(path) for path in paths}

    def check(self) -> None:
        """Raises UserError if a file has changed meanwhile: what was computed since may be from other pixels."""
        for path, before in self._stamps.items():
            if _stamp(path) != before:
                raise UserError(
                    f"{path} has changed while it was trained on: restore it, and go on with --resume from the last"
                    " checkpoint, which is older than the change"
                )

    def newest(self) -> float:
        """When a file was last changed: seconds since 1970; 0 if there is none."""
        return max((stamp[2] / 1e9 for stamp in self._stamps.values() if stamp), default=0.0)


def _stamp(path: Path) -> tuple[int, ...]:
    """Inode, bytes, and time of the last change; empty if there is no file."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns
