"""Features and labels that users bring along, from whatever holds them: tensors, arrays, lists, .npy files.

Shapes: N images, D features.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from fewshot.core.errors import UserError
from fewshot.data import Dataset, Split
from fewshot.evaluation.embed import Base

Array: TypeAlias = "Tensor | np.ndarray | Sequence | str | os.PathLike"
"""A tensor, anything that NumPy makes an array of, or the path of a .npy file."""


def features(values: Array, images: int | None, what: str = "features") -> Tensor:
    """(images, D) float32. Raises UserError for another number of images (None: any will do) or another shape."""
    if not isinstance(values, Tensor):
        values = torch.from_numpy(_array(values, what, "biuf", 2).astype(np.float32))
    if values.ndim != 2 or images not in (None, len(values)) or not values.numel() or values.is_complex():
        rows = "N" if images is None else images
        kind = "complex numbers of shape " if values.is_complex() else ""
        raise UserError(f"{what} must have the shape ({rows}, D), one row an image, not {kind}{tuple(values.shape)}")
    return values.detach().float()


def labelled(values: Array, labels: Array, split: str) -> tuple[Dataset, Tensor]:
    """A data set of one split, without pixels, whose classes are the sorted labels (N,); the features in its order."""
    labels = _array(labels, "labels", "biufUS", 1)
    rows = features(values, len(labels))
    names, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = torch.from_numpy(classes.argsort(kind="stable"))
    images = np.empty((len(labels), 0, 0, 3), np.uint8)
    members = Split(split, images, tuple(map(str, names)), tuple(counts.tolist()))
    return Dataset("features", {split: members}, "none", "features"), rows[order.to(rows.device)]


def base(values: Array, labels: Array | None, train: Split | None, like: Tensor) -> Base:
    """Features and labels of the base classes, on the device of `like` (N, D), the features to score.

    Without labels they are in the order of `train`, if there is one. Raises UserError if they do not fit, or are not
    finite.
    """
    ordered = train.labels if train is not None and labels is None else None
    rows = features(values, None if ordered is None else len(ordered), "base").to(like.device)
    if rows.shape[1] != like.shape[1]:
        raise UserError(f"base has {rows.shape[1]} features an image, and the images to score have {like.shape[1]}")
    finite = rows.isfinite().all(1)
    if not finite.all():
        raise UserError(f"base: the features of image {int((~finite).nonzero()[0])} are not finite")
    if labels is None:
        return Base(rows, None if ordered is None else torch.from_numpy(ordered).to(like.device))
    labels = _array(labels, "base_labels", "biufUS", 1)
    if len(labels) != len(rows):
        raise UserError(f"there are {len(labels)} base_labels, and base has {len(rows)} images")
    return Base(rows, torch.from_numpy(np.unique(labels, return_inverse=True)[1]).to(like.device))


def _array(values: Array, what: str, kinds: str, dimensions: int) -> np.ndarray:
    """An array from whatever holds one. Raises UserError for a type not of NumPy's `kinds`, or a wrong shape."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    elif isinstance(values, (str, os.PathLike)):
        if not Path(values).is_file():  # reading a pipe would wait
            raise UserError(f"{what}: {values} is not a .npy file: there is no such file")
        try:
            loaded = np.load(Path(values), mmap_mode="r")  # a header may promise more than there is
        except (OSError, ValueError, EOFError, SyntaxError) as error:
            raise UserError(f"{what}: {values} is not a .npy file that can be read ({error})") from None
        if not isinstance(loaded, np.ndarray):
            loaded.close()
            raise UserError(f"{what}: {values} is a .npz file of many arrays; give one, or a .npy file")
        values = loaded
    try:
        values = np.asarray(values)
    except (ValueError, TypeError) as error:
        raise UserError(f"{what}: this is no array ({error})") from None
    if values.dtype.kind not in kinds or values.ndim != dimensions:
        raise UserError(
            f"{what} must be an array of {dimensions} dimension{'s' * (dimensions > 1)}, of numbers"
            f"{' or text' * ('U' in kinds)}, not of shape {values.shape} and type {values.dtype}"
        )
    return values
