"""Two splits as one, for training on all images that are not tested."""

from __future__ import annotations

import numpy as np

from fewshot.core.errors import UserError
from fewshot.data import image_files
from fewshot.data.dataset import Dataset, Split
from fewshot.data.image_files import ImageFiles


def train_and_val(dataset: Dataset) -> Split:
    """The training and validation images together, class by class: files, or a copy in memory.

    Raises UserError if the two have different classes.
    """
    train, val = dataset["train"], dataset["val"]
    if train.classes != val.classes:
        raise UserError(f"the training and validation images of {dataset.name} show other classes: train on one")
    counts = tuple(of_train + of_val for of_train, of_val in zip(train.counts, val.counts, strict=True))
    return Split("train and val", _joined(train, val), train.classes, counts)


def _joined(train: Split, val: Split) -> np.ndarray | ImageFiles:
    arrays: list[np.ndarray] = []
    files: list[ImageFiles] = []
    for cls in range(len(train.classes)):
        for split in (train, val):
            start, count = split.starts[cls], split.counts[cls]
            if isinstance(split.images, ImageFiles):
                files.append(split.images.rows(np.arange(start, start + count)))
            else:
                arrays.append(split.images[start : start + count])
    return image_files.joined(files) if files else np.concatenate(arrays)
