"""What a run folder says of its setup: what was settled when it began, and the code behind it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fewshot.config import TrainConfig
from fewshot.core import sources
from fewshot.experiment.setup import Setup
from fewshot.transforms import Transform

# Our files that every training runs through, including its validations, which choose the weights. The files of its
# components are added.
TRAINING_CODE = (
    "model.py", "core/compute.py", "core/crew.py", "core/pace.py", "core/seeding.py", "data/augment.py",
    "data/image_files.py", "data/images.py", "data/joined.py", "episodes/sampler.py", "evaluation/classification.py",
    "evaluation/embed.py", "evaluation/score.py", "evaluation/solve.py", "evaluation/verdicts.py", "learning/keeper.py",
    "learning/loop.py", "learning/optimizer.py", "learning/schedule.py", "backbones/_base.py", "heads/_base.py",
    "regularizers/__init__.py", "regularizers/_base.py", "learning/regimes/_base.py",
)  # fmt: skip


def settled(config: TrainConfig, setup: Setup) -> dict[str, Any]:
    """What is settled when a run begins, besides the configuration: kept in its config.json."""
    model, dataset = setup.model, setup.dataset
    mean, std = model.backbone.normalisation or (dataset.mean, dataset.std)
    facts = {
        **dataset.fingerprints, "image_size": dataset.image_size, "mean": mean, "std": std,
        "parameters": model.parameter_count, "features": model.backbone.features,
        "steps": setup.regime.pace(config).steps,
        "regularizers": [
            f"site {reg.site.label}: {reg}" + f" ({reg.remark})" * bool(reg.remark)
            for reg in model.backbone.regularizers
        ],
    }  # fmt: skip
    if setup.regime.splits != ("train",):
        facts["trained_splits"] = list(setup.regime.splits)
    facts |= model.backbone.facts
    if setup.regime.classifier:
        facts["classifier"] = dataclasses.asdict(setup.regime.classifier)
    if setup.init:
        facts["init"] = {"run": config.init, "weights": setup.init}
    return facts


def _component_modules(setup: Setup) -> list[str]:
    """The Python modules that the run's components come from."""
    model = setup.model
    within = [*model.transform.modules(), *model.head.modules()]  # a head may have a transform of its own
    mapped = [each for each in within if isinstance(each, Transform)]
    components = [model.backbone, model.head, *model.backbone.regularizers, *mapped, setup.regime]
    components += [*([model.classifier] if model.classifier else []), *setup.regime.parts]
    return list(dict.fromkeys(type(each).__module__ for each in components))


def code_files(setup: Setup) -> dict[str, dict[str, Path]]:
    """The source files that train a run, by their names: {"ours": {name: path}, "users": {name: path}}."""
    modules = _component_modules(setup)
    ours = {path.relative_to(sources.PACKAGE).as_posix(): path for path in sources.ours(TRAINING_CODE, modules)}
    return {"ours": ours, "users": sources.users(modules)}


def digests(code: dict[str, dict[str, Path]]) -> dict[str, dict[str, str]]:
    """The same, with each file's digest instead of its path: what a run keeps as `resolved.code`."""
    return {
        whose: {name: sources.digest(path) for name, path in sorted(files.items())} for whose, files in code.items()
    }


def in_a_line(config: TrainConfig, setup: Setup) -> str:
    """What will be trained, in a line."""
    classifier = setup.model.classifier
    solver = f"{config.head} head" if setup.test or classifier is None else f"{classifier.kind} classifier"
    return (
        f"{config.backbone} ({setup.model.parameter_count:,} parameters), {solver}, regularizer {config.reg};"
        f" recipe {config.recipe}: {setup.regime.pace(config).steps:,} steps of {setup.regime.what};"
        f" {setup.compute.device}, {setup.compute.precision}"
        + (f", {crew.size} processes." if (crew := setup.compute.crew).several else ".")
    )
