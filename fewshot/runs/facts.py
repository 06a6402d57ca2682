"""What the JSON files of a run folder say, checked when it is read: that each is ours, whole, and of this run."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from fewshot import config as configs
from fewshot.config import TrainConfig
from fewshot.core import sealed, sources, typed
from fewshot.core import trust as trusted
from fewshot.core.errors import UserError
from fewshot.core.files import read_bounded, write_atomic
from fewshot.identity import difference, digest, pixels
from fewshot.runs import metrics
from fewshot.runs.rows import CLASSIFICATION, FEWSHOT, Kind, longest

FORMAT = 3  # of config.json
FOREIGN = "foreign"  # the regime of a run whose network was trained elsewhere (evaluation/foreign.py)
_SEALED = 3  # the first format whose files carry digests
_SINCE_FORMAT_2 = {
    "regime": "episodic", "transform": "none", "init": "", "optimizer": "sgd", "clip_norm": 0.0, "ema": 0.0,
    "warmup_epochs": 0,
    "test_ways": 5, "val_shots": 0, "compile": False, "deterministic": False,  # not in the first runs of format 1
}  # fmt: skip
_SINCE_FORMAT_3 = {"sync_bn": False}  # fields that its first runs do not have
_RESOLVED = {
    "fingerprint": str, "former_fingerprint": str, "image_size": int,
    "mean": tuple[float, float, float], "std": tuple[float, float, float],
    "parameters": int, "features": int, "steps": int, "code": dict[str, dict[str, str]], "init": dict[str, str],
    "network": dict[str, str | int], "weights": dict[str, str],
}  # fmt: skip
_ENVIRONMENT = {
    "commit": str | None, "versions": dict[str, str | None], "python": str, "started": str, "device": str,
    "precision": str, "threads": int, "train_seconds": float, "resumed_with_code": dict[str, dict[str, str]],
    "code_between": list[str],
    "sittings": list[dict[str, str | int]], "best_step": int, "weights_sha256": list[str], "metrics_sha256": str,
    "metrics_bytes": int,
}  # fmt: skip
_SITTING = ("device", "precision", "threads")
_MOVE = "move it away and evaluate again"
_LARGEST_JSON = 16 * 2**20  # bytes
_LARGEST_IMAGE = 4096  # pixels


_OF_CONFIG = ("config.json",)
Kept = TypeVar("Kept")


class Facts:
    """A run folder, read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metrics_path = folder / "metrics.jsonl"
        self.checkpoint_path = folder / "checkpoint.pt"
        self.best_path = folder / "best.safetensors"
        self.spare_path = folder / ".best-before.safetensors"
        self.result_path = folder / "result.json"
        self._kept: dict[str, tuple[list, Any]] = {}

    def _once(self, names: Sequence[str], make: Callable[[], Kept]) -> Kept:
        """`make()`, kept while its files stay unchanged: a leaderboard asks each of its runs a dozen times."""
        what, stamps = make.__name__, [_stamp(self.folder / name) for name in names]
        if what not in self._kept or self._kept[what][0] != stamps:
            self._kept[what] = stamps, make()
        return self._kept[what][1]

    def _read(self, name: str) -> bytes:
        try:
            return read_bounded(self.folder / name, _LARGEST_JSON)
        except FileNotFoundError:
            raise UserError(f"{self.folder / name} is missing; is {self.folder} a finished run?") from None

    def _parse(self, name: str, data: bytes) -> tuple[dict[str, Any], bool]:
        try:
            return sealed.parse_json(data)
        except ValueError as error:
            raise self._damaged(name, str(error)) from None

    def _config(self) -> tuple[dict[str, Any], str]:
        """The content of config.json, and the digest of the file."""
        return self._once(_OF_CONFIG, self._read_config)

    def _read_config(self) -> tuple[dict[str, Any], str]:
        data = self._read("config.json")
        values, seal = self._parse("config.json", data)
        written = values.get("format", 1)
        if type(written) is not int or not 1 <= written <= FORMAT:
            path = self.folder / "config.json"
            raise UserError(f"{path} is of format {written}; this fewshot reads up to {FORMAT}: install a newer one")
        if written >= _SEALED and not seal:
            raise self._damaged("config.json", "it lacks its sha256")
        return values, sealed.sha256(data)

    def _json(self, name: str) -> dict[str, Any]:
        """The content of environment.json or result.json. UserError if it is damaged, or another run's."""
        value, seal = self._parse(name, self._read(name))
        if not seal:
            if self.sealed:
                raise self._damaged(name, "it lacks its sha256")
            return value
        if value.pop("config_sha256", None) != self.identity:
            raise UserError(f"{self.folder / name} is not of this run: it names another config.json; restore its own")
        return value

    def _write(self, name: str, value: dict[str, Any]) -> None:
        write_atomic(self.folder / name, sealed.dump_json({"config_sha256": self.identity} | value))

    def _damaged(self, name: str, why: str) -> UserError:
        remedy = _MOVE if name == "result.json" else "restore it, or train again"
        return UserError(f"{self.folder / name} is damaged: {why}; {remedy}")

    @property
    def identity(self) -> str:
        """SHA-256 of config.json, by which the run's other files name it."""
        return self._config()[1]

    @property
    def sealed(self) -> bool:
        """Whether the run's files carry digests: those of older versions do not."""
        return self._config()[0].get("format", 1) >= _SEALED

    @property
    def config(self) -> TrainConfig:
        return self._once(_OF_CONFIG, self._build_config)

    def _build_config(self) -> TrainConfig:
        values = dict(self._config()[0])
        values.pop("resolved", None)
        if values.pop("format", 1) == 1:
            values = _SINCE_FORMAT_2 | values
        values = _SINCE_FORMAT_3 | values
        if missing := [name for name in configs.FIELDS if name not in values]:
            raise self._damaged("config.json", f"it lacks {missing[0]}")
        try:
            return TrainConfig(**configs.from_json(values, "its values"))
        except UserError as error:
            raise self._damaged("config.json", str(error)) from None

    def check_is_of(self, config: TrainConfig, elsewhere: bool = False) -> None:
        """Raises UserError if the run is of another configuration. How it is trained (`identity.HOW`), and a recipe's
        name, may differ; if it goes on `elsewhere`, the precision too."""
        if name := difference(self.config, config, ("recipe", "precision") if elsewhere else ("recipe",)):
            begun, asked = (getattr(each, name) for each in (self.config, config))
            raise UserError(f"{self.folder} began with {configs.flag(name)} {begun}, not {asked}; give another --out")

    def check_has_network(self) -> None:
        """Raises UserError if the run is of a network that was trained elsewhere (evaluation/foreign.py)."""
        if self.config.regime == FOREIGN:
            raise UserError(
                f"{self.folder} holds results alone: its network was trained elsewhere, and is not in it; give that to"
                " fewshot.benchmark again"
            )

    def check_code(self, trust: Sequence[str] = (), dataset: bool = False) -> None:
        """Raises UserError if it names a user's code that may not run here (core/trust.py). Nothing is imported.

        `dataset`: whether its data set is to be opened by the name in the configuration.
        """
        self.check_has_network()
        values = configs.to_json(self.config)
        if not dataset:
            del values["dataset"]
        trusted.check(configs.users_modules(values), self.folder, trust)

    @property
    def resolved(self) -> dict[str, Any]:
        """What was settled when the run began: fingerprint, image size, normalisation, parameters."""
        return self._once(_OF_CONFIG, self._check_resolved)

    def _check_resolved(self) -> dict[str, Any]:
        facts = self._config()[0].get("resolved")
        if not isinstance(facts, dict):
            raise self._damaged("config.json", "it has no 'resolved'")
        code, init = facts.get("code", {"ours": {}, "users": {}}), facts.get("init", {"run": "", "weights": ""})
        mistake = typed.wrong(facts, _RESOLVED) or typed.wrong(code, {}, ("ours", "users"))
        if mistake or (mistake := typed.wrong(init, {}, ("run", "weights"))):
            raise self._damaged("config.json", f"in 'resolved', {mistake}")
        return facts

    @property
    def images(self) -> tuple[int, tuple[float, float, float], tuple[float, float, float]]:
        """Side in pixels, mean and standard deviation of the images that the network is for."""
        facts = self.resolved
        if mistake := typed.wrong(facts, {}, ("image_size", "mean", "std")):
            raise self._damaged("config.json", f"in 'resolved', {mistake}")
        size, mean, std = facts["image_size"], tuple(facts["mean"]), tuple(facts["std"])
        if not 1 <= size <= _LARGEST_IMAGE or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
            raise self._damaged("config.json", f"no images have {size} px, mean {mean} and std {std}")
        return size, mean, std

    @property
    def steps(self) -> int:
        """Optimizer steps of the whole training. Runs that do not record them were all episodic."""
        return self.resolved.get("steps", self.config.episodic_pace.steps)

    @property
    def code_digest(self) -> str:
        """Digest of the code that trained the run, the user's and ours; "" if an older version did not record it."""
        code = self.resolved.get("code")
        later = self.environment.get("resumed_with_code")
        between = self.environment.get("code_between", [])
        return "" if code is None else digest([code, later, *between] if later else code)

    @property
    def changed_code(self) -> str:
        """The user's files that trained the run and have changed since, as a text `a.py, b.py`; "" if none has."""
        code = self.environment.get("resumed_with_code") or self.resolved.get("code", {})
        before = code.get("users", {})
        names = sources.changed(configs.users_modules(configs.to_json(self.config)), before) if before else []
        return ", ".join(names)

    @property
    def environment(self) -> dict[str, Any]:
        return self._once((*_OF_CONFIG, "environment.json"), self._read_environment)

    def _read_environment(self) -> dict[str, Any]:
        facts = self._json("environment.json")
        if mistake := typed.wrong(facts, _ENVIRONMENT):
            raise self._damaged("environment.json", mistake)
        return facts

    @property
    def sittings(self) -> list[dict[str, Any]]:
        """What the run was trained on, in turn: device, precision, threads; where unusual, also processes and torch.

        Empty if training has not begun.
        """
        facts = self.environment
        if "sittings" in facts:
            if mistake := next((m for each in facts["sittings"] if (m := typed.wrong(each, {}, _SITTING))), None):
                raise self._damaged("environment.json", f"in 'sittings', {mistake}")
            return facts["sittings"]
        return [{name: facts[name] for name in _SITTING}] if facts.keys() >= set(_SITTING) else []

    @property
    def unsaid(self) -> dict[str, Any]:
        """What a sitting has that names no processes or torch: one process, and the version that the run began with."""
        return {"processes": 1, "torch": self.environment.get("versions", {}).get("torch")}

    @property
    def precision(self) -> str:
        """The precision it was last trained in, and tested in by that training; "" if the record does not say."""
        return self.sittings[-1]["precision"] if self.sittings else self.environment.get("precision", "")

    @property
    def processes(self) -> str:
        """In how many processes it was trained: "1", or "2+1" if another number went on with it."""
        return "+".join(dict.fromkeys(str((self.unsaid | each)["processes"]) for each in self.sittings)) or "1"

    @property
    def result(self) -> dict[str, Any]:
        """result.json: {"run": {...}, "results": [...]}, and "classification": [...]; accuracies as fractions of 1."""
        value = self._json("result.json")
        named, known = value.get("weights_sha256"), self.environment.get("weights_sha256")
        if self.sealed and known and named not in known:
            raise UserError(f"{self.result_path} is of other weights than environment.json names: {_MOVE}")
        return value

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The few-shot results so far: one for each protocol, tasks and pixels. UserError if they are not ours."""
        return self._rows(FEWSHOT)

    @property
    def classification(self) -> list[dict[str, Any]]:
        """The classification results so far: one for each split and its pixels. UserError if they are not ours."""
        return self._rows(CLASSIFICATION)

    def _rows(self, kind: Kind) -> list[dict[str, Any]]:
        if not os.path.lexists(self.result_path):
            return []
        found = self.result.get(kind.key, None if kind is FEWSHOT else [])
        if mistake := kind.wrong(found):
            raise UserError(f"{self.result_path} is not a result of ours ({mistake}); {_MOVE}")
        assert isinstance(found, list)
        return found

    @property
    def longest(self) -> list[dict[str, Any]]:
        """Of `rows`, the one with the most episodes, for each protocol and copy of the images."""
        return longest(self.rows)

    def own(self, split: str = "test", any_head: bool = False) -> list[dict[str, Any]]:
        """Of `longest`, those of its own test protocol on a split of the data set that it was trained on.

        With its own head and transform, or with any head and transform.
        """
        return self._own(self.longest, split, any_head)

    def tested(self) -> list[dict[str, Any]]:
        """The rows of the test that its configuration asks for, whatever else it was evaluated on."""
        asked, trained_on = (self.config.test_episodes, 0), pixels(self.resolved)
        return [
            row for row in self._own(self.rows, "test", any_head=False)
            if (row.get("episodes"), row["episodes_seed"]) == asked and trained_on in (None, pixels(row))
        ]  # fmt: skip

    def is_on_its_own(self, row: Mapping[str, Any]) -> bool:
        """Whether a row is on the data set that the run was trained on: by its name, or else by its pixels, because
        the configuration may name a specification (`my_sets.TOYS`)."""
        known = pixels(self.resolved)
        return row["dataset"] == self.config.dataset or (known is not None and pixels(row) == known)

    def _own(self, rows: list[dict[str, Any]], split: str, any_head: bool) -> list[dict[str, Any]]:
        config = self.config
        solved = {"head": config.head, "transform": config.transform}
        asked = {"split": split, "ways": config.test_ways, "queries": config.test_queries}
        wanted = asked if any_head else asked | solved
        return [
            row for row in rows
            if (solved | row).items() >= wanted.items()  # old rows do not say what solved them
            and row["shots"] in config.test_shots and "query_alpha" not in row and self.is_on_its_own(row)
        ]  # fmt: skip

    @property
    def summary(self) -> dict[str, Any]:
        """What result.json says about the run itself."""
        config, settled, environment = self.config, self.resolved, self.environment
        return {
            "backbone": config.backbone, "head": config.head, "regularizer": config.reg, "recipe": config.recipe,
            "seed": config.seed, "parameters": settled.get("parameters"), "trained_on": config.dataset,
            "train_fingerprint": settled.get("fingerprint"), "train_seconds": environment.get("train_seconds"),
            "steps": self.steps, "device": environment.get("device"), "commit": environment.get("commit"),
        }  # fmt: skip

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The logged lines, whole ones only. Raises UserError if one is not as training writes it, or if the file was
        changed; FileNotFoundError if nothing is logged."""
        facts = self.environment
        length = None if "train_seconds" in facts else facts.get("metrics_bytes")
        return metrics.read(self.metrics_path, facts.get("metrics_sha256", ""), length)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        about = path.stat()
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns
