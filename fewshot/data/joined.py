"""Two splits as one, for training on all images that are not tested."""

from __future__ import annotations

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data.store import Dataset, Split


def train_and_val(dataset: Dataset) -> Split:
    """The training and validation images together, class by class: a copy in memory, of as many bytes as both have.

    UserError where the two have other classes.
    """
    train, val = dataset["train"], dataset["val"]
    if train.classes != val.classes:
        raise UserError(f"the training and validation images of {dataset.name} show other classes: train on one")
    blocks = [
        split.images[start : start + count]
        for starts in zip(train.starts, train.counts, val.starts, val.counts, strict=True)
        for split, start, count in ((train, *starts[:2]), (val, *starts[2:]))
    ]
    counts = tuple(of_train + of_val for of_train, of_val in zip(train.counts, val.counts, strict=True))
    return Split("train and val", np.concatenate(blocks), train.classes, counts)
