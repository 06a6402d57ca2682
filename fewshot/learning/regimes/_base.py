"""What every regime is, and all that the training loop knows of it."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from torch import Tensor

from fewshot.classifiers import Form
from fewshot.config import TrainConfig
from fewshot.core.compute import Compute
from fewshot.core.pace import Pace
from fewshot.data import Dataset, Split
from fewshot.episodes import Tasks
from fewshot.evaluation.classification import classify
from fewshot.evaluation.score import score
from fewshot.evaluation.solve import accuracies, wants_base
from fewshot.model import Model

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Validation:
    """What a validation found."""

    selected: float
    """The figure by which the best weights are chosen: the larger, the better."""
    figures: dict[str, float]
    """All figures, by the names under which they are logged."""


def validate_on_tasks(model: Model, tasks: Sequence[Tasks], compute: Compute, base: Split | None = None) -> Validation:
    """The model's mean accuracy on each of `tasks`, named by their shots; the first decides.

    `base`: the split of the base classes, `dataset["train"]`. A head or transform that is fitted on them is fitted
    again at each validation, for which all images of `base` are embedded; for others `base` makes no difference. Raises
    UserError if it is needed and not given.
    """
    head, transform = model.head, model.transform
    if wants_base(head, transform):  # copies: what they learn here is not part of what is trained
        head, transform = copy.deepcopy(head), copy.deepcopy(transform)
    means = {
        f"{each.protocol.shots}shot": float(accuracies(right, each.protocol.queries).mean())
        for each, right in zip(tasks, score(model, tasks, compute, base, head, transform), strict=True)
    }
    return Validation(next(iter(means.values())), means)


def validate_on_images(model: Model, split: Split, compute: Compute) -> Validation:
    """The accuracy of the model's classifier on the images of a split: `top1`, which decides, and `top5`."""
    found = classify(model, split, compute).figures(len(split.classes))
    return Validation(found["top1"], {name: found[name] for name in ("top1", "top5") if name in found})


class Regime(ABC, Generic[Batch]):
    """How a model is trained. A subclass in this package, or a user's own (`--regime my_pkg.MyRegime`).

    `classifies`: set by a class whose models have a classifier that learns to name the training classes. If a data
    set has the same classes in every split, a run is then validated and tested on images, by that classifier: there are
    no validation tasks (`validate_on_images`), and the test is top-1 accuracy.

    `shared`: set by a class with which several processes can train: `batch` gives each its share of the step's items,
    `compute.crew.share(n)`, and `loss` is the mean over these. Items are those of `Pace.per_step`.

    `unused`: fields of the configuration that have no effect in it, so that a user who sets one is told.

    `smaller`: what makes a step smaller, for a user whose memory does not suffice.
    """

    classifies: ClassVar[bool] = False
    shared: ClassVar[bool] = False
    unused: ClassVar[tuple[str, ...]] = ()
    smaller: ClassVar[str] = "fewer --episodes-per-batch, --shots or --queries"

    @classmethod
    @abstractmethod
    def build(
        cls, config: TrainConfig, dataset: Dataset, validation: Sequence[Tasks], compute: Compute
    ) -> Regime[Batch]:
        """The regime of a run. It takes what it needs from the configuration, here and nowhere else.

        Its own options are keyword-only parameters, typed and with defaults: `--regime supervised:batch=128`.
        `validation`: the tasks on which weights are chosen; the first decide. There are none if images decide: see
        `classifies`. Raises UserError if the data set cannot give what the configuration asks for.
        """

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits of the data set whose images are trained on."""
        return ("train",)

    @property
    def classifier(self) -> Form | None:
        """The classifier of the base classes that the model is to have: `model.classifier`. None: it needs none."""
        return None

    @property
    def parts(self) -> tuple[object, ...]:
        """Objects from other files that training uses because of its options: a run records their code."""
        return ()

    def check(self, model: Model) -> None:
        """Raises UserError if this regime cannot train such a model. Called before anything is written."""

    def warning(self, model: Model) -> str:
        """What the user should know before this regime trains such a model, without a full stop; "" if nothing."""
        said = dict.fromkeys(reg.warning for reg in model.backbone.regularizers)
        return "; ".join(filter(None, said))

    def pace(self, config: TrainConfig) -> Pace:
        """How long training is. An epoch may be a number of episodes, as here, or of other things."""
        return config.episodic_pace

    @property
    def what(self) -> str:
        """What a step trains on, for people: "8 5-way 1-shot episodes"."""
        return f"{self.images_per_step} images"

    @property
    @abstractmethod
    def images_per_step(self) -> int:
        """Images that a step embeds, in all processes: the unit in which the speed is reported."""

    @abstractmethod
    def batch(self, step: int) -> Batch:
        """What optimizer step `step` (from 0) trains on, on the device. Configuration and `step` alone decide it.

        With several processes, this one's share of it.
        """

    @abstractmethod
    def loss(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss, with a gradient, and the training accuracy (a fraction of 1): one number each, on the device."""

    @abstractmethod
    def validate(self, model: Model) -> Validation:
        """Score the model as it is, often by `validate_on_tasks`; leaves it in evaluation mode."""
