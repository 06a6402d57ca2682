"""The run folder: everything a run leaves behind, and the only way it is read and written.

    config.json          the complete configuration             environment.json  versions, device, commit
    metrics.jsonl        one object a step or validation        checkpoint.pt     to go on exactly
    best.safetensors     weights of the best validation         result.json       the accuracies
    episodes-*.npy       accuracy of every episode, one file a result (evaluation/records.py)
    tasks-*.npz          the episodes' classes, and the tasks that share no image (evaluation/records.py)
    code/                copies of the user's own modules that trained the run, if any

config.json carries its `format`. Format 1 (without that field) had fewer fields; they are read with the value that they
then had implicitly. Besides the fields it holds `resolved`, what was settled when the run began: the fingerprint of the
images, their size and normalisation, parameters, and the digests of the code that trains (core/sources.py).
"""

from __future__ import annotations

import datetime
import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.core import trust as trusted
from fewshot.core import typed
from fewshot.core.errors import UserError
from fewshot.core.files import locked, new_folder, open_own, read_bounded, write_json
from fewshot.data.channels import Triple
from fewshot.identity import digest

FORMAT = 2  # of config.json
_SINCE_FORMAT_2 = {
    "regime": "episodic", "transform": "none", "init": "", "optimizer": "sgd", "clip_norm": 0.0, "ema": 0.0,
    "warmup_epochs": 0,
    "test_ways": 5, "val_shots": 0, "compile": False, "deterministic": False,  # not in the first runs of format 1
}  # fmt: skip
_PROTOCOL = ("dataset", "split", "ways", "shots", "queries", "head", "episodes_seed")  # what is asked of a run
_IMPLIED = {"transform": "none"}  # the same; what an older row without the field means
_ONLY_IF_THERE = ("query_alpha",)  # the same, of rows that have it: the key of the others stays as it was
_TASKS = ("episodes", "episodes_digest", "fingerprint")  # which tasks, and on which pixels
_ROW = {  # of result.json
    "dataset": str, "split": str, "ways": int, "shots": int, "queries": int, "query_alpha": float, "head": str,
    "episodes_seed": int, "transform": str, "setting": Literal["inductive", "transductive"], "episodes": int,
    "accuracy": float, "std": float, "ci95": float, "ci_method": str, "episodes_digest": str, "fingerprint": str,
    "membership": str,
    "task_list": str | None, "task_list_digest": str | None, "episodes_file": str, "tasks_file": str,
    "seen_in_training": dict[str, int], "solver_code": str,
}  # fmt: skip
_RESOLVED = {
    "fingerprint": str, "image_size": int, "mean": tuple[float, float, float], "std": tuple[float, float, float],
    "parameters": int, "features": int, "steps": int, "code": dict[str, dict[str, str]], "init": dict[str, str],
}  # fmt: skip
_ENVIRONMENT = {
    "commit": str | None, "versions": dict[str, str | None], "python": str, "started": str, "device": str,
    "precision": str, "train_seconds": float, "resumed_with_code": dict[str, dict[str, str]],
}  # fmt: skip
_METRICS = {"step": int, "loss": float, "validation": dict[str, float]}
_MOVE = "move it away and evaluate again"
_LARGEST_JSON = 16 * 2**20  # bytes
_LARGEST_IMAGE = 4096  # pixels
_LARGEST_LOG = 256 * 2**20
_LONGEST_NAME = 180  # characters of a folder's name: file systems end at 255 bytes


class Run:
    """One run folder. `Run.create` makes a new one, `Run.open` checks that there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics_path = folder / "metrics.jsonl"
        self.checkpoint_path = folder / "checkpoint.pt"
        self.best_path = folder / "best.safetensors"
        self.result_path = folder / "result.json"

    @classmethod
    def create(
        cls,
        config: TrainConfig,
        out: str | os.PathLike | None,
        resolved: dict[str, Any],
        code: Mapping[str, Path] | None = None,
    ) -> Run:
        """A new folder with config.json; `out`, or a name under runs/ that says what the run is.

        `resolved`: what was settled besides the fields. `code`: files of the user's to keep copies of, by their names
        below code/. UserError where `out` exists. The folder appears with its files in it: one that was never begun
        could be neither resumed nor replaced.
        """
        for folder in [Path(out)] if out is not None else _names(Path("runs"), _describe(config)):
            try:
                if folder.exists():
                    raise FileExistsError
                with new_folder(folder) as work:
                    about = {"format": FORMAT} | configs.to_json(config) | {"resolved": resolved}
                    write_json(work / "config.json", about)
                    for name, source in (code or {}).items():
                        copy = work / "code" / name
                        copy.parent.mkdir(parents=True, exist_ok=True)
                        copy.write_bytes(source.read_bytes())
                    write_json(work / "environment.json", environment())
                return cls(folder)
            except FileExistsError:  # by another run, begun in the same second: the next name is ours
                continue
        raise UserError(f"{out} exists; give --resume to go on with it, or another --out")

    @classmethod
    def open(cls, folder: str | os.PathLike) -> Run:
        """An existing run. UserError where there is none."""
        run = cls(Path(folder))
        if not (run.folder / "config.json").is_file():
            raise UserError(f"{folder} is not a run folder: it has no config.json")
        return run

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against another process that would write to it. UserError where it is held."""
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.folder / ".lock"))
            except BlockingIOError:
                raise UserError(f"another process is at work in {self.folder}; wait for it, or stop it") from None
            yield

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            value = json.loads(read_bounded(path, _LARGEST_JSON))
        except FileNotFoundError:
            raise UserError(f"{path} is missing; is {self.folder} a finished run?") from None
        except UserError:
            raise
        except (ValueError, RecursionError):
            raise UserError(f"{path} is damaged: it is not JSON") from None
        if not isinstance(value, dict):
            raise UserError(f"{path} is damaged: it is not a JSON object")
        return value

    @property
    def config(self) -> TrainConfig:
        path = self.folder / "config.json"
        values = self._json("config.json")
        values.pop("resolved", None)
        written = values.pop("format", 1)
        if type(written) is not int or not 1 <= written <= FORMAT:
            raise UserError(f"{path} is of format {written}; this fewshot reads up to {FORMAT}: install a newer one")
        if written == 1:
            values = _SINCE_FORMAT_2 | values
        if missing := [name for name in configs.FIELDS if name not in values]:
            raise UserError(f"{path} is damaged: it lacks {missing[0]}")
        try:
            return TrainConfig(**configs.from_json(values, "its values"))
        except UserError as error:
            raise UserError(f"{path} is damaged: {error}") from None

    def check_code(self, trust: Sequence[str] = (), dataset: bool = False) -> None:
        """UserError where it names code of a user's that may not run here (core/trust.py). Nothing is imported.

        `dataset`: whether its data set is to be opened by the name that it has.
        """
        values = configs.to_json(self.config)
        if not dataset:
            del values["dataset"]
        trusted.check(configs.users_modules(values), self.folder, trust)

    @property
    def resolved(self) -> dict[str, Any]:
        """What was settled when the run began: fingerprint, image size, normalisation, parameters."""
        facts = self._json("config.json").get("resolved")
        path = self.folder / "config.json"
        if not isinstance(facts, dict):
            raise UserError(f"{path} is damaged: it has no 'resolved'")
        code, init = facts.get("code", {"ours": {}, "users": {}}), facts.get("init", {"run": "", "weights": ""})
        mistake = typed.wrong(facts, _RESOLVED) or typed.wrong(code, {}, ("ours", "users"))
        if mistake or (mistake := typed.wrong(init, {}, ("run", "weights"))):
            raise UserError(f"{path} is damaged: in 'resolved', {mistake}")
        return facts

    @property
    def images(self) -> tuple[int, Triple, Triple]:
        """Side in pixels, mean and standard deviation of the images that the network is for."""
        facts, path = self.resolved, self.folder / "config.json"
        if mistake := typed.wrong(facts, {}, ("image_size", "mean", "std")):
            raise UserError(f"{path} is damaged: in 'resolved', {mistake}")
        size, mean, std = facts["image_size"], tuple(facts["mean"]), tuple(facts["std"])
        if not 1 <= size <= _LARGEST_IMAGE or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise UserError(f"{path} is damaged: no images have {size} px, mean {mean} and std {std}")
        return size, mean, std

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training. Runs that do not say so were all episodic."""
        return self.resolved.get("steps", self.config.episodic_pace.steps)

    @property
    def code_digest(self) -> str:
        """Of the code that trained the run, the user's and ours; "" where an older version did not record it."""
        code = self.resolved.get("code")
        later = self.environment.get("resumed_with_code")
        return "" if code is None else digest([code, later] if later else code)

    @property
    def environment(self) -> dict[str, Any]:
        facts = self._json("environment.json")
        if mistake := typed.wrong(facts, _ENVIRONMENT):
            raise UserError(f"{self.folder / 'environment.json'} is damaged: {mistake}")
        return facts

    def note_environment(self, **facts: Any) -> None:
        """Add facts to environment.json (device, precision: known only once torch has been asked)."""
        write_json(self.folder / "environment.json", self.environment | facts)

    @property
    def result(self) -> dict[str, Any]:
        """result.json: {"run": {...}, "results": [...]}, accuracies as fractions of 1."""
        return self._json("result.json")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The results so far: one for each protocol, tasks and pixels. UserError where result.json is not ours."""
        if not os.path.lexists(self.result_path):
            return []
        rows = self.result.get("results")
        if not isinstance(rows, list):
            raise UserError(f"{self.result_path} is not a result of ours (it lacks results); {_MOVE}")
        for row in rows:
            if mistake := typed.wrong(row, _ROW, _PROTOCOL):
                raise UserError(f"{self.result_path} is not a result of ours ({mistake}); {_MOVE}")
        return rows

    @property
    def longest(self) -> list[dict[str, Any]]:
        """Of `rows`, for each protocol and copy of the images the one of most episodes."""
        best: dict[tuple, dict[str, Any]] = {}
        for row in self.rows:
            key = *_protocol(row), row.get("fingerprint")
            if key not in best or best[key].get("episodes", 0) < row.get("episodes", 0):
                best[key] = row
        return list(best.values())

    @property
    def trained(self) -> bool:
        """Whether training came to its end."""
        return "train_seconds" in self.environment

    @property
    def finished(self) -> bool:
        """Whether it was scored as well."""
        return self.trained and self.result_path.is_file()

    @property
    def summary(self) -> dict[str, Any]:
        """What result.json says of the run itself."""
        config, settled, environment = self.config, self.resolved, self.environment
        return {
            "backbone": config.backbone, "head": config.head, "regularizer": config.reg, "recipe": config.recipe,
            "seed": config.seed, "parameters": settled.get("parameters"), "trained_on": config.dataset,
            "train_fingerprint": settled.get("fingerprint"), "train_seconds": environment.get("train_seconds"),
            "steps": self.steps, "device": environment.get("device"), "commit": environment.get("commit"),
        }  # fmt: skip

    def others(self, rows: Sequence[dict[str, Any]], replace: bool = False) -> list[dict[str, Any]]:
        """The results that stay beside new `rows`: those of other protocols, tasks or pixels.

        `replace`: those of other protocols only.
        """
        key = _protocol if replace else result_key
        replaced = {key(row) for row in rows}
        return [row for row in self.rows if key(row) not in replaced]

    def write_result(self, rows: list[dict[str, Any]], replace: bool = False) -> None:
        """Write result.json: `rows`, and those of the earlier ones that stay beside them (`others`)."""
        write_json(self.result_path, {"run": self.summary, "results": self.others(rows, replace) + rows})

    def append_metrics(self, rows: Iterable[dict[str, Any]]) -> int:
        """Append lines to metrics.jsonl; returns its length in bytes, which a checkpoint remembers."""
        handle = open_own(self.metrics_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        with os.fdopen(handle, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
            file.flush()
            return file.tell()

    def sync_metrics(self) -> None:
        """Wait until metrics.jsonl is on the disk, as the checkpoint that counts on it will be."""
        if self.metrics_path.exists():
            with os.fdopen(open_own(self.metrics_path, os.O_RDONLY), "rb") as file:
                os.fsync(file.fileno())

    def truncate_metrics(self, length: int) -> None:
        """Forget what was logged after a checkpoint: those steps come again."""
        try:
            handle = open_own(self.metrics_path, os.O_RDWR)
        except FileNotFoundError:
            return
        with os.fdopen(handle, "r+b") as file:
            file.truncate(min(length, os.fstat(handle).st_size))  # never longer: that adds zeros

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The logged lines, whole ones only: a run that is being written may end in half of one.

        UserError where one is not as training writes it; FileNotFoundError where nothing is logged.
        """
        for line in read_bounded(self.metrics_path, _LARGEST_LOG).splitlines(keepends=True):
            if not line.endswith(b"\n"):
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                raise UserError(f"{self.metrics_path} is damaged: a line of it is not JSON") from None
            if mistake := typed.wrong(row, _METRICS, ("step",)):
                raise UserError(f"{self.metrics_path} is damaged: {mistake}")
            yield row


def _protocol(row: dict[str, Any]) -> tuple:
    asked = [row[name] for name in _PROTOCOL] + [row.get(name, implied) for name, implied in _IMPLIED.items()]
    return *asked, *(row[name] for name in _ONLY_IF_THERE if name in row)


def result_key(row: dict[str, Any]) -> tuple:
    """What a result is the result of: the protocol, its tasks, the pixels."""
    return *_protocol(row), *map(row.get, _TASKS)


def _describe(config: TrainConfig) -> str:
    parts = (config.dataset, config.backbone, config.head, config.reg, f"{config.shots}shot", f"seed{config.seed}")
    readable = "_".join(re.sub(r"[^A-Za-z0-9.,=+@-]+", "-", part) for part in parts)
    return f"{readable[:_LONGEST_NAME]}_{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _names(parent: Path, name: str) -> Iterator[Path]:
    """parent/name, then name-2, name-3, ... : two runs begun in one second must not meet."""
    yield parent / name
    for attempt in itertools.count(2):
        yield parent / f"{name}-{attempt}"


def environment() -> dict[str, Any]:
    """Versions, machine and commit: what a number's reader may ask about."""
    packages = ("fewshot", "torch", "torchvision", "numpy", "scipy", "pillow")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "versions": {name: _version(name) for name in packages},
        "commit": _commit(),
        "command": sys.argv,
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The checkout's commit, `-dirty` if a tracked file differs from it; None for an installed wheel."""
    here = Path(__file__).resolve().parent
    if not (here.parent / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()
