"""Supervised training: one classifier of all base classes, as in plain image classification.

Shapes: B images of a step in this process, S x S pixels, D features, K classes.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot import heads
from fewshot.classifiers import Form
from fewshot.config import TrainConfig
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.core.pace import Pace
from fewshot.core.seeding import derive, generator_for
from fewshot.data import Dataset, Split
from fewshot.data.augment import Augmentation
from fewshot.data.image_files import Ahead, ImageFiles
from fewshot.data.images import ImageSource
from fewshot.data.joined import train_and_val
from fewshot.data.mixing import Mixing
from fewshot.data.randaugment import STRENGTHS, RandAugment
from fewshot.episodes import Tasks
from fewshot.learning.regimes._base import Regime, Validation, validate_on_images, validate_on_tasks
from fewshot.model import Model
from fewshot.regularizers import Guide

ROTATIONS = 4  # by 0, 90, 180 and 270 degrees
_MOST_OPERATIONS = 10  # of RandAugment; the paper tries up to 3


@dataclass(frozen=True)
class Batch:
    """What a step trains on."""

    images: Tensor
    """(B, 3, S, S) in [0, 1]."""
    labels: Tensor
    """(B,) int64: the classes that images show."""
    others: Tensor
    """(B,) int64: the classes that are mixed in."""
    share: float
    """The share of `labels` in each image: 1 if nothing is mixed."""


@dataclass(frozen=True)
class Supervised(Regime[Batch]):
    """Cross-entropy over the base classes, on images in random order, each once per epoch.

    `batch`: images per step. `classifier`: linear, or cosine (fewshot/classifiers.py). `smoothing`: label smoothing,
    0..1 (Szegedy et al., CVPR 2016). `mixup`: images are blended in pairs with a share drawn from Beta(mixup, mixup),
    one for all pairs of a step (Zhang et al., ICLR 2018). `cutmix`: a square of one image is put into another, its
    area from Beta(cutmix, cutmix) (Yun et al., ICCV 2019). With both, each step does one of the two, with equal
    probability. 0 switches either off. `rotation`: each image is also shown turned by 90, 180 and 270 degrees, which
    makes a step four times as large, and a second layer names the turn; its loss is added (Gidaris et al., ICCV 2019).
    `randaugment`: the number of random operations that change each image, after the crop and before images are mixed or
    turned; 0 for none (Cubuk et al., NeurIPS 2020). `magnitude`: their strength, 0..30. torchvision's defaults are 2
    operations of strength 9.

    `train`: "split" is the images of the training split; "all" adds those of the validation split, as papers on plain
    classification do, if both splits have the same classes. With `train=all`, nothing is left to choose weights
    by: the last are kept (set `--val-every` to the number of epochs), and the validation images were seen in training.

    Images in files, such as ImageNet's, are seen as random parts of 8 to 100 per cent of the image, 3:4 to 4:3, resized
    (torchvision's RandomResizedCrop), instead of crops of the padded image. A pool of threads decodes them a step
    ahead.

    Weights are selected on the same few-shot validation tasks as in episodic training, with the run's head, which is
    not trained here (`simpleshot`, and transforms such as `center`, are fitted on the training split's embeddings at
    each validation). If all splits have the same classes (fashion-mnist), weights are selected by the classifier's
    top-1 accuracy on the validation images, and the test is its top-1 accuracy on the test images. A regularizer that
    needs a guide gets the classifier's own weights and the images' own classes; for mixed images, the classes that they
    show most of.
    """

    classifies = True
    shared = True
    unused = ("ways", "queries", "episodes_per_epoch", "episodes_per_batch", "embed")
    idle_beside = {"magnitude": ("randaugment", 0)}
    smaller = "a smaller batch, as in --regime supervised:batch=32"

    seed: int
    source: ImageSource
    classes: np.ndarray
    """(I,) int64: the class of each image of the training split."""
    augment: Augmentation
    validation: Sequence[Tasks] | Split
    """Tasks; images if the classifier itself is tested."""
    base: Split
    """What heads and transforms that need base classes are fitted on, as in the test."""
    compute: Compute
    images: int
    """In all processes."""
    trained: tuple[str, ...]
    classifier_form: Form
    smoothing: float
    mixing: Mixing | None
    mirror: bool
    randaugment: RandAugment | None = None

    @classmethod
    def build(
        cls,
        config: TrainConfig,
        dataset: Dataset,
        validation: Sequence[Tasks],
        compute: Compute,
        *,
        batch: int = 64,
        classifier: Literal["linear", "cosine"] = "linear",
        smoothing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        rotation: bool = False,
        train: Literal["split", "all"] = "split",
        randaugment: int = 0,
        magnitude: int = 9,
    ) -> Supervised:
        """See Regime.build."""
        if batch < (least := 2 * compute.crew.size):
            each = " in each process" * compute.crew.several
            raise UserError(f"supervised:batch={batch}: give at least {least} images; batch norm needs two{each}")
        if not 0 <= smoothing < 1:
            raise UserError(f"supervised:smoothing={smoothing}: give 0 or more, and less than 1")
        for name, value in (("mixup", mixup), ("cutmix", cutmix)):
            if not 0 <= value < float("inf"):
                raise UserError(f"supervised:{name}={value}: give 0 for none, or a positive number")
        if train == "all" and config.val_every < config.epochs:
            raise UserError(
                f"supervised:train=all leaves no images to choose weights by: give --val-every {config.epochs}, and the"
                " last weights are tested"
            )
        if not 0 <= randaugment <= _MOST_OPERATIONS:
            raise UserError(f"supervised:randaugment={randaugment}: give 0 for none, or at most {_MOST_OPERATIONS}")
        if not 0 <= magnitude < STRENGTHS:
            raise UserError(f"supervised:magnitude={magnitude}: give 0 to {STRENGTHS - 1}")
        trained = train_and_val(dataset) if train == "all" else dataset["train"]
        return cls(
            config.seed,
            ImageSource(trained, compute.device),
            trained.labels,
            _augmentation(config, trained),
            dataset["val"] if dataset.shared_classes else validation,
            dataset["train"],
            compute,
            batch,
            ("train", "val") if train == "all" else ("train",),
            Form(classifier, len(trained.classes), ROTATIONS if rotation else 0),
            smoothing,
            Mixing(mixup, cutmix) if mixup or cutmix else None,
            config.mirror,
            RandAugment(randaugment, magnitude) if randaugment else None,
        )

    @property
    def splits(self) -> tuple[str, ...]:
        """See Regime.splits."""
        return self.trained

    @property
    def classifier(self) -> Form:
        """See Regime.classifier."""
        return self.classifier_form

    def check(self, model: Model) -> None:
        """See Regime.check: this regime does not train on tasks, so it trains no head."""
        heads.check_untrained(model.head)

    @property
    def parts(self) -> tuple[object, ...]:
        """See Regime.parts."""
        return tuple(part for part in (self.randaugment, self.mixing) if part)

    def pace(self, config: TrainConfig) -> Pace:
        """See Regime.pace: an epoch is each image once."""
        return Pace(config.epochs, len(self.classes), self.images, config.val_every)

    @property
    def images_per_step(self) -> int:
        """B, of all processes."""
        return self.images * max(1, self.classifier_form.rotations)

    @property
    def what(self) -> str:
        """See Regime.what."""
        return f"{self.images} images of {self.classifier_form.classes} classes"

    def batch(self, step: int) -> Batch:
        """See Regime.batch."""
        index, drawn = self._index(step), self.augment.draw(self.images, generator_for(self.seed, step, "augmentation"))
        mine, some = self.compute.crew.share(self.images), self._needed
        if self._ahead:
            images = self.source.near(self._ahead.batch(step))
            positions = torch.arange(len(images), device=images.device)
        else:
            images, positions = self.source.fetch(index[some])
        batch = self.augment(images, positions, drawn[some].to(self.compute.device))
        if self.randaugment:
            numbers = range(step * self.images, (step + 1) * self.images)[some]
            batch = self.randaugment(batch, [derive(self.seed, number, "RandAugment") for number in numbers])
        labels = self.source.near(self.classes[index[some]])
        if self.mixing is None:
            return Batch(batch, labels, labels, 1.0)
        batch, order, share = self.mixing(batch, np.random.default_rng(derive(self.seed, step, "mixing")))
        return Batch(batch[mine], labels[mine], labels[order][mine], share)

    def loss(self, model: Model, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean cross-entropy, and how often the class that an image shows most of is named."""
        assert model.classifier is not None
        images, labels, others = batch.images, batch.labels, batch.others
        if rotations := self.classifier_form.rotations:
            images = torch.cat([images.rot90(turns, (2, 3)) for turns in range(rotations)])
            images = images.contiguous(memory_format=torch.channels_last)
            labels, others = labels.repeat(rotations), others.repeat(rotations)
        most = labels if batch.share >= 0.5 else others
        guide = None
        if model.backbone.guided:
            named = self._named(model, images) if model.backbone.guided_by_name else None
            guide = Guide(model.backbone.channel_weights(model.classifier.weight.detach()), most, named)
        with self.compute.autocast(), model.backbone.guided_by(guide):
            z = model(images)
        logits = model.classifier(z)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        if batch.share < 1:
            other = F.cross_entropy(logits, others, label_smoothing=self.smoothing)
            loss = batch.share * loss + (1 - batch.share) * other
        if rotations:
            turns = torch.arange(rotations, device=z.device).repeat_interleave(len(batch.images))
            loss = loss + F.cross_entropy(model.classifier.rotated(z), turns)
        return loss, (logits.detach().argmax(1) == most).float().mean()

    @torch.no_grad()
    def _named(self, model: Model, images: Tensor) -> Tensor:
        """(B,): the class that the classifier names for each image, with regularizers off, as in evaluation."""
        assert model.classifier is not None
        model.eval()
        with self.compute.autocast():
            z = model(images)
        model.train()
        return model.classifier(z).argmax(1)

    def validate(self, model: Model) -> Validation:
        """Accuracy on the validation tasks, by shots, or on the validation images."""
        if isinstance(self.validation, Split):
            return validate_on_images(model, self.validation, self.compute)
        return validate_on_tasks(model, self.validation, self.compute, self.base)

    @property
    def _needed(self) -> slice:
        """Those of a batch's images that this process must see: its share, or all if they are mixed."""
        return slice(None) if self.mixing else self.compute.crew.share(self.images)

    @functools.cached_property
    def _ahead(self) -> Ahead | None:
        """If the images are in files: random crops of them, decoded a step ahead."""
        if self.source.files is None:
            return None

        def draw(step: int) -> np.random.Generator:
            return np.random.default_rng(derive(self.seed, step, "crops"))

        return Ahead(self.source.files, self._index, draw, self.mirror, self._needed)

    def _index(self, step: int) -> np.ndarray:
        """(`images`,) int64: those of a whole step. Each epoch has its own order, and batches run on over its end."""
        count = len(self.classes)
        places = np.arange(step * self.images, (step + 1) * self.images)
        epochs, within = places // count, places % count
        return np.concatenate(
            [_order(self.seed, int(epoch), count)[within[epochs == epoch]] for epoch in np.unique(epochs)]
        )


def _augmentation(config: TrainConfig, trained: Split) -> Augmentation:
    """What is done to images, apart from the random crops of those in files, which are mirrored when decoded."""
    augment = Augmentation(config.crop_padding, config.jitter, config.mirror)
    if not isinstance(trained.images, ImageFiles):
        return augment
    if config.crop_padding:
        raise UserError(
            f"{config.dataset}: its images are not padded, but random parts of them are cut out and resized: give"
            " --crop-padding 0"
        )
    return replace(augment, mirror=False)


@functools.lru_cache(maxsize=2)  # a batch may see the end of one epoch and the beginning of the next
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    """(count,) int64: the order of the images in an epoch."""
    return np.random.default_rng(derive(seed, epoch, "order of images")).permutation(count)
