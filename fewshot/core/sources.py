"""The code behind a run: which source files, and their digests. Files are read, nothing is executed.

A user's component, `my_pkg.my_module.MyDrop`, depends on its module and on those beside it, under the same folder of
PYTHONPATH, that it imports, directly or through each other. Modules of other folders (torch, an installed package) are
known by their versions.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from fewshot.core.errors import UserError

PACKAGE = Path(__file__).resolve().parent.parent


def users(modules: Iterable[str]) -> dict[str, Path]:
    """The source files behind a user's imported modules, by their path below the folder that they come from.

    Modules of fewshot itself are skipped. Raises UserError if a module has no file, as in an interactive session.
    """
    files: dict[str, Path] = {}
    for module in modules:
        origin = _origin(module)
        if PACKAGE in origin.parents:
            continue
        root, within = _beside(module, origin)
        found = _closure({origin}, root, within)
        files |= {path.relative_to(root).as_posix(): path for path in found if PACKAGE not in path.parents}
    return files


def exists(module: str) -> bool:
    """Whether there is a module of this name, which has no dot. Nothing is imported."""
    return module in sys.modules or _specification(module) is not None


def is_users(module: str) -> bool:
    """Whether a module is a user's source file: not ours, not Python's, and not of an installed package."""
    origin = locate(module)
    installed = {PACKAGE, *_installed()}
    return origin is not None and origin.suffix == ".py" and not any(folder in origin.parents for folder in installed)


def locate(module: str) -> Path | None:
    """The file of a module, found without importing it or its packages; None if it has none, or there is none."""
    first, *rest = module.split(".")
    spec = _specification(first)
    for part in rest:
        places = spec and spec.submodule_search_locations
        if not places:
            return None
        spec = PathFinder.find_spec(part, list(places))  # by its whole name, it would need the package imported
    return Path(spec.origin).resolve() if spec and spec.has_location and spec.origin else None


def would_run(module: str) -> dict[str, Path]:
    """As `users`, for one module that is not imported: its files, those of its packages, and what they import.

    Empty if it has no source file. Raises SyntaxError if a file is not Python.
    """
    origin = locate(module)
    if origin is None or origin.suffix != ".py":
        return {}
    root, within = _beside(module, origin)
    found = _closure({origin, *_files_of(module, root)}, root, within)
    return {path.relative_to(root).as_posix(): path for path in found}


def lacks(path: str) -> str:
    """Why a dotted path, `my_pkg.my_module.MyDrop`, cannot be imported; "" if it can, or if that is not known.

    Nothing is imported.
    """
    module, _, name = path.rpartition(".")
    if not exists(module.partition(".")[0]):
        return f"there is no module {module}: is its folder on PYTHONPATH?"
    origin, (parent, _, last) = locate(module), module.rpartition(".")
    if origin is None and parent and (package := locate(parent)) and package.name == "__init__.py":
        if not any(package.parent.glob(f"{last}*")):
            return f"there is no module {module}; is the name right?"
    if origin is None or origin.suffix != ".py":
        return ""
    try:
        tree = ast.parse(origin.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ""
    named = {alias.asname or alias.name for node in ast.walk(tree) for alias in getattr(node, "names", [])
             if isinstance(alias, ast.alias)}  # fmt: skip
    named |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    named |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    return "" if named & {name, "*", "__getattr__"} else f"module {module} has no {name}; is the name right?"


def derived(path: Path, base: str) -> list[str]:
    """Public classes that a source file defines with a base of this name. Nothing is imported."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    return [each.name for each in classes if any(ast.unparse(its).split(".")[-1] == base for its in each.bases)]


def changed(modules: Iterable[str], before: Mapping[str, str]) -> list[str]:
    """Names of the files behind `modules` that have changed since `before`, which has their digests by name.

    Files that cannot be found are skipped. Nothing is imported.
    """
    files: dict[str, Path] = {}
    for module in modules:
        with suppress(OSError, SyntaxError, ValueError, RecursionError):
            files |= would_run(module)
    return sorted(name for name, path in files.items() if name in before and digest(path) != before[name])


def _specification(module: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(module)
    except (ImportError, ValueError):  # the latter for what is imported, and has none
        return None


def _beside(module: str, origin: Path) -> tuple[Path, Path]:
    """The folder of the import path that a module comes from, and the folder whose files count as beside it."""
    root = origin.parents[module.count(".") + (origin.name == "__init__.py")]
    return root, root / module.partition(".")[0] if root in _installed() else root


def ours(always: Iterable[str], modules: Iterable[str]) -> list[Path]:
    """Our own files: `always`, relative to the package, and those behind our modules, each in its folder."""
    files = {PACKAGE / name for name in always}
    for module in modules:
        origin = _origin(module)
        if PACKAGE in origin.parents:
            files |= _closure({origin}, PACKAGE.parent, origin.parent)
    return sorted(files)


def digest(path: Path) -> str:
    """SHA-256 of a source file, the same whichever line ends a checkout gave it."""
    return hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()


def _origin(module: str) -> Path:
    file = getattr(sys.modules[module], "__file__", None)
    if file is None or not file.endswith(".py"):
        raise UserError(f"module {module!r} has no source file, so no run can keep a copy: put it into a .py file")
    return Path(file).resolve()


def _installed() -> set[Path]:
    """Folders of installed packages and of Python: there only the component's own package counts as beside it."""
    folders = [*site.getsitepackages(), site.getusersitepackages(), *sysconfig.get_paths().values()]
    return {Path(folder).resolve() for folder in folders}


def _closure(start: Iterable[Path], root: Path, within: Path) -> set[Path]:
    """`start`, and the files below `within` that they import, however indirectly. Names are looked up below `root`."""
    found: set[Path] = set()
    waiting = list(start)
    while waiting:
        path = waiting.pop()
        found.add(path)
        files = {file for name in _imports(path, root) for file in _files_of(name, root)}
        waiting += [file for file in files - found if within in file.parents and file not in waiting]
    return found


def _imports(path: Path, root: Path) -> Iterator[str]:
    """Absolute names of the modules that a file imports anywhere; what is imported from one may be a module, too."""
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" if base else alias.name for alias in node.names)


def _files_of(name: str, root: Path) -> Iterator[Path]:
    """The file of a module below `root`, and the `__init__.py` of each package on the way to it."""
    place = root
    for part in name.split("."):
        place = place / part
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                yield file.resolve()
