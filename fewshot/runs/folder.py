"""A run folder, written and read. `fewshot.runs` says what is in one."""

from __future__ import annotations

import datetime
import itertools
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.core import sealed
from fewshot.core.errors import UserError
from fewshot.core.files import clear_abandoned, held, locked, new_folder, read_bounded, sweep, vacant, write_atomic
from fewshot.runs import metrics
from fewshot.runs.facts import FORMAT, Facts
from fewshot.runs.provenance import environment, version
from fewshot.runs.rows import CLASSIFICATION, FEWSHOT, Kind

_WRITTEN = (  # by write_atomic
    r"(?:config|environment|result)\.json|checkpoint\.pt|(?:\.best-before|best)\.safetensors"
    r"|(?:episodes|tasks|images)-[^/]+\.np[yz]"
)
_TRACE = r"steps-\d+-\d+\.json"  # of the profiler (reports/following/profiling.py)
_TEMPORARY = re.compile(rf"\.(?:{_WRITTEN})-[a-z0-9_]{{8}}|\.{_TRACE}")
_LOCK = ".lock"
_JOINED = ("device", "precision")
_LARGEST_WEIGHTS = 8 * 2**30
_MOST_NAMED = 3  # run folders in one line
_LONGEST_NAME = 180  # characters of a folder's name: file systems end at 255 bytes


class Run(Facts):
    """One run folder. `Run.create` makes a new one, `Run.open` checks that there is one."""

    @classmethod
    def create(
        cls,
        config: TrainConfig,
        out: str | os.PathLike | None,
        resolved: dict[str, Any],
        code: Mapping[str, Path] | None = None,
    ) -> Run:
        """A new folder with config.json: `out`, or one under runs/ with a name that says what the run is.

        `resolved`: what was settled besides the fields. `code`: the user's files to keep copies of, by their names
        below code/. Raises UserError if `out` exists and is not an empty folder. The folder appears with its files in
        it: one that was never begun could be neither resumed nor replaced.
        """
        for folder in [Path(out)] if out is not None else _names(Path("runs"), _describe(config)):
            try:
                if not vacant(folder):
                    raise FileExistsError
                clear_abandoned(folder.parent, _LOCK)
                cls._make(folder, config, resolved, code)
                return cls(folder)
            except FileExistsError:  # by another run, begun in the same second: the next name is ours
                continue
        raise cls.taken(str(out), config)

    @classmethod
    def taken(cls, out: str | os.PathLike, config: TrainConfig) -> UserError:
        """Why no run of this configuration can begin in `out`, which exists and is not an empty folder."""
        if not (Path(out) / "config.json").is_file():
            return UserError(f"{out} exists, and is no run folder; give another --out")
        try:
            cls.open(out).check_is_of(config)
        except UserError as error:  # --resume is no remedy
            return error
        return UserError(f"{out} exists; give --resume to go on with it, or another --out")

    @classmethod
    def _make(cls, folder: Path, *about: Any) -> None:
        """Make a run folder with `begin`. FileExistsError if there is one."""
        for left in reversed(range(3)):
            try:
                with new_folder(folder) as work, locked(work / _LOCK):
                    cls(work).begin(*about)
                return
            except (BlockingIOError, FileNotFoundError):  # another process found ours not yet locked, and deleted it
                if not left:
                    raise

    def begin(self, config: TrainConfig, resolved: dict[str, Any], code: Mapping[str, Path] | None = None) -> None:
        """Write into the run's empty folder what it has from its first moment on: see `create`."""
        settled = {"resolved": resolved | {"id": secrets.token_hex(16)}}
        about = {"format": FORMAT} | configs.to_json(config) | settled
        write_atomic(self.folder / "config.json", sealed.dump_json(about))
        for name, source in (code or {}).items():
            copy = self.folder / "code" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
        self._write("environment.json", environment())

    @classmethod
    def open(cls, folder: str | os.PathLike) -> Run:
        """An existing run. Raises UserError if there is none."""
        run = cls(Path(folder))
        if not (run.folder / "config.json").is_file():
            below = [str(path.parent) for path in sorted(run.folder.glob("*/config.json"))]
            more = f" and {len(below) - _MOST_NAMED:,} more" * (len(below) > _MOST_NAMED)
            runs = f"; runs in it: {', '.join(below[:_MOST_NAMED])}{more}" * bool(below)
            raise UserError(f"{folder} is not a run folder: it has no config.json{runs}")
        return run

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against another process that would write to it. Raises UserError if it is held.

        Temporary files that killed processes have left are deleted.
        """
        with ExitStack() as held:
            try:
                alone = held.enter_context(locked(self.folder / _LOCK))
            except BlockingIOError:
                raise UserError(f"another process is at work in {self.folder}; wait for it, or stop it") from None
            if alone:
                sweep(self.folder, _TEMPORARY)
            yield

    @property
    def at_work(self) -> bool:
        """Whether a process holds the folder; on a system without locks, also one that was killed."""
        return held(self.folder / _LOCK)

    def tidy(self) -> None:
        """Delete what a process that was killed in its last moment has left; nothing if another is at work."""
        with suppress(UserError, OSError), self.lock():
            pass

    # ---- environment.json

    def note_environment(self, **facts: Any) -> None:
        """Add facts to environment.json (device and precision are only known once torch has been asked)."""
        self._write("environment.json", self.environment | facts)

    def note_sitting(self, device: str, precision: str, threads: int, processes: int = 1) -> None:
        """Record where training goes on from here; where it was before stays in the record."""
        now: dict[str, Any] = {"device": device, "precision": precision, "threads": threads}
        besides = {"processes": processes, "torch": version("torch")}
        now |= {name: value for name, value in besides.items() if value not in (None, self.unsaid[name])}
        before = self.sittings
        sittings = before if before and before[-1] == now else [*before, now]
        if sittings != before:
            device, precision = ("+".join(dict.fromkeys(each[name] for each in sittings)) for name in _JOINED)
            self.note_environment(device=device, precision=precision, threads=threads, sittings=sittings)

    def note_trained(self, seconds: float, best_step: int, best_sha256: str) -> None:
        """Record that training has come to its end, with these weights as its best."""
        known = {"weights_sha256": [best_sha256]} if best_sha256 else {}
        self.note_environment(train_seconds=seconds, best_step=best_step, **known)

    @property
    def trained(self) -> bool:
        """Whether training came to its end."""
        return "train_seconds" in self.environment

    @property
    def finished(self) -> bool:
        """Whether it was trained, and tested as configured."""
        if not self.trained or not self.result_path.is_file():
            return False
        return not self.sealed or self.result.get("tested") is True

    # ---- best.safetensors

    def keep_weights(self, data: bytes, step: int) -> str:
        """Write best.safetensors, the weights of a validation after `step`; returns their digest.

        environment.json names the digest that the file has, and the one that it gets: one of them is always right. The
        weights that the last checkpoint counts on are set aside until the next one (`bring_back`). Raises UserError if
        the new ones are too large to be read again.
        """
        before, new = self._weights_digest(), sealed.sha256(data)
        self.note_environment(weights_sha256=[*([before] if before not in (None, new) else []), new], best_step=step)
        if before not in (None, new) and not self.spare_path.exists():
            try:
                os.link(self.best_path, self.spare_path)
            except OSError:  # a file system without links
                write_atomic(self.spare_path, self.best_path.read_bytes())
        write_atomic(self.best_path, data, most=_LARGEST_WEIGHTS)
        return new

    def bring_back(self, digest: str, step: int) -> None:
        """Put back the weights of this digest, of a validation after `step`, if newer ones have taken the place of what
        a checkpoint counts on.

        The newer ones might not come again: on a GPU, training repeats itself to the bit only with --deterministic.
        """
        with suppress(FileNotFoundError):
            if digest and sealed.sha256(read_bounded(self.spare_path, _LARGEST_WEIGHTS)) == digest:
                newer = self.environment.get("weights_sha256", [])[-1:]
                self.note_environment(weights_sha256=[*newer, digest], best_step=step)
                os.replace(self.spare_path, self.best_path)
        self.drop_spare()

    def drop_spare(self) -> None:
        """Delete what `keep_weights` has set aside: a checkpoint counts on the weights that are there."""
        self.spare_path.unlink(missing_ok=True)

    def weights(self) -> bytes:
        """The content of best.safetensors. Raises UserError if it is missing, damaged, or another run's."""
        self.check_has_network()
        try:
            data = read_bounded(self.best_path, _LARGEST_WEIGHTS)
        except FileNotFoundError:
            name = self.best_path.name
            raise UserError(f"{self.folder} has no weights ({name}): finish its training with --resume") from None
        self._check_weights(sealed.sha256(data))
        return data

    def check_weights(self, step: int, digest: str) -> None:
        """Raises UserError if best.safetensors is not what a checkpoint at `step` counts on by its `digest`.

        Newer weights are fine: they are of a validation after it, which will come again.
        """
        found = self._weights_digest()
        if found is None:
            raise UserError(f"{self.best_path} is missing: bring it back, or {metrics.AGAIN}")
        if found != digest:
            self._check_weights(found)
            if self.environment.get("best_step", 0) <= step:
                raise UserError(f"{self.best_path} is older than the checkpoint: bring it back, or {metrics.AGAIN}")

    def _weights_digest(self) -> str | None:
        try:
            return sealed.sha256(read_bounded(self.best_path, _LARGEST_WEIGHTS))
        except FileNotFoundError:
            return None

    def _check_weights(self, found: str) -> None:
        known = self.environment.get("weights_sha256", [] if self.sealed else None)
        if known is not None and found not in known:
            raise UserError(
                f"{self.best_path} is damaged, or another run's: environment.json names other weights by their sha256;"
                " restore it, or train again"
            )

    # ---- result.json

    def write_result(
        self, new: list[dict[str, Any]], replace: bool = False, tested: bool = False, kind: Kind = FEWSHOT
    ) -> None:
        """Write result.json: `new` rows of the best weights, and the earlier ones that stay beside them.

        An evaluation exists from this one moment on. Its records are there by then, under names that no earlier row has
        for other bytes. `tested`: whether the new rows are of the test that the configuration asks for.
        """
        tested |= os.path.lexists(self.result_path) and self.result.get("tested") is True
        every = {FEWSHOT.key: self.rows, CLASSIFICATION.key: self.classification}
        every[kind.key] = kind.beside(every[kind.key], new, replace) + new
        if not every[CLASSIFICATION.key]:
            del every[CLASSIFICATION.key]
        about = {"weights_sha256": self._weights_digest(), "tested": tested, "run": self.summary}
        self._write("result.json", about | every)

    # ---- metrics.jsonl

    def note_metrics(self, log: metrics.Log) -> None:
        """Record in environment.json what metrics.jsonl holds up to here."""
        self.note_environment(metrics_bytes=log.length, metrics_sha256=log.digest)

    def note_begun_anew(self, log: metrics.Log) -> None:
        """Record that training begins at step 0: whatever was trained before, it is not trained until its end.

        Raises UserError if there are results of the weights that this training replaces: its own could not be kept.
        """
        if os.path.lexists(self.result_path):
            raise UserError(f"{self.result_path} is of weights that training again replaces: move it away, and go on")
        kept = {name: value for name, value in self.environment.items() if name not in ("train_seconds", "best_step")}
        self._write("environment.json", kept | {"metrics_bytes": log.length, "metrics_sha256": log.digest})


def _describe(config: TrainConfig) -> str:
    how = [config.head, config.reg, f"{config.shots}shot"]
    if config.regime != "episodic":
        how = [config.regime.partition(":")[0], config.reg]
    parts = (config.dataset, config.backbone, *how, f"seed{config.seed}")
    readable = "_".join(re.sub(r"[^A-Za-z0-9.,=+@-]+", "-", part) for part in parts)
    return f"{readable[:_LONGEST_NAME]}_{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _names(parent: Path, name: str) -> Iterator[Path]:
    """parent/name, then name-2, name-3, ... : two runs begun in one second must not meet."""
    yield parent / name
    for attempt in itertools.count(2):
        yield parent / f"{name}-{attempt}"
