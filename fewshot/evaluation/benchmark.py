"""Score any network, or features that are already computed, on everyone's tasks: `fewshot.benchmark`."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fewshot import heads
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.data import Dataset, Split, default_dataset, open_dataset
from fewshot.data.images import Normalise
from fewshot.episodes import Protocol, Tasks, frozen
from fewshot.evaluation.solve import accuracies, check_finite, embed_split, solve_episodes
from fewshot.evaluation.statistics import summarise
from fewshot.heads import Head
from fewshot.model import Model, evaluating


@dataclass(frozen=True)
class Score:
    """One line of a benchmark; accuracies are fractions of 1. `print` shows it for people."""

    dataset: str
    split: str
    ways: int
    shots: int
    queries: int
    episodes: int
    accuracy: float
    std: float
    """Of the episodes, divisor n - 1."""
    ci95: float
    """Half-width of the field's interval, 1.96 * std / sqrt(n): of this test set's own value."""
    episodes_digest: str
    task_list: str | None
    """The frozen list that the episodes were verified against, if there is one."""
    fingerprint: str
    """Of the data set's pixels."""
    accuracies: np.ndarray = field(repr=False, compare=False)
    """(episodes,) float64: to compare two networks task by task, `evaluation.statistics.paired_difference`."""

    def __str__(self) -> str:
        task = f"{self.dataset} {self.split}, {self.ways}-way {self.shots}-shot"
        return f"{task}: {100 * self.accuracy:.2f} ± {100 * self.ci95:.2f} % ({self.episodes:,} episodes)"


def benchmark(
    model: nn.Module | Tensor | np.ndarray | str | os.PathLike,
    dataset: str | Dataset | None = None,
    head: str | Head | None = None,
    shots: int | Sequence[int] = (1, 5),
    *,
    labels: Tensor | np.ndarray | Sequence | str | os.PathLike | None = None,
    split: str = "test",
    ways: int = 5,
    queries: int = 15,
    episodes: int = 10_000,
    transform: Callable[[Tensor], Tensor] | None = None,
    data_root: str | os.PathLike | None = None,
) -> list[Score]:
    """5-way 1- and 5-shot accuracy of `model` on a prepared data set: one Score for each of `shots`.

    model: any module that maps images to vectors, scored in evaluation mode where it is (CPU or GPU); or features
        (N, D) of images in the order of `dataset[split]`, or with `labels` (N,) of any images: tensor, array, or .npy.
    dataset: its name, or an opened one; by default the commands' (mini-imagenet where it is prepared, else glyphs).
        Features with labels have none.
    head: a spec such as "r2d2:lam=10", or a head; by default the model's own if it comes from `fewshot.load`, else proto.
    transform: makes what the model wants of images (B, 3, S, S) in [0, 1], such as a torchvision weights' `transforms()`;
        by default they are normalised with the training split's mean and standard deviation.
    data_root: of prepared data sets; by default $FEWSHOT_DATA, else "data".

    Raises UserError (a ValueError) for a data set that is not there, too small for the tasks or not the frozen list's,
    for features of another number than the images, and for values that are not finite, naming the first image. Warns
    where the pixels are not those of the list's reference copy.
    """
    if episodes < 2:
        raise UserError(f"episodes={episodes}: an interval needs at least 2")
    solver = _solver(model, head)
    if not isinstance(model, nn.Module) and transform is not None:
        raise UserError("transform is for the images that a module embeds; these are features")
    if labels is not None:
        if dataset is not None:
            raise UserError("features with labels have no dataset; leave one of the two out")
        dataset, features = labelled(model, _array(labels, "labels", "biufUS", 1), split)
    else:
        if not isinstance(dataset, Dataset):
            root = data_root or os.environ.get("FEWSHOT_DATA") or "data"
            dataset = open_dataset(dataset or default_dataset(root)[0], root)
        features = None if isinstance(model, nn.Module) else _features(model, len(dataset[split].images))
    protocols = [Protocol(ways, int(n), queries) for n in dict.fromkeys(np.atleast_1d(shots).tolist())]
    wanted = [frozen.standard_tasks(dataset, split, protocol, episodes) for protocol in protocols]
    if warning := frozen.pixel_warning(dataset, wanted):
        warnings.warn(warning, stacklevel=2)
    if features is None:
        features = _embed(model, dataset, split, transform)
    else:
        check_finite(features, dataset[split])
    scored = solve_episodes(solver.to(features.device), features, wanted)
    return [_score(dataset, tasks, right) for tasks, right in zip(wanted, scored, strict=True)]


def labelled(features, labels: np.ndarray, split: str) -> tuple[Dataset, Tensor]:
    """A data set without pixels, of one split, whose classes are the sorted labels (N,); features in its order."""
    features = _features(features, len(labels))
    names, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    order = torch.from_numpy(classes.argsort(kind="stable"))
    images = np.empty((len(labels), 0, 0, 3), np.uint8)
    members = Split(split, images, tuple(map(str, names)), tuple(counts.tolist()))
    return Dataset("features", {split: members}, "none", "features"), features[order.to(features.device)]


def _features(features, images: int) -> Tensor:
    """(images, D) float32. UserError where they are of another number or form."""
    if isinstance(features, nn.Module):
        raise UserError("labels belong to features; a module is scored on a data set")
    if not isinstance(features, Tensor):
        features = torch.from_numpy(_array(features, "features", "biuf", 2).astype(np.float32))
    if features.ndim != 2 or len(features) != images:
        raise UserError(f"features must have the shape ({images}, D), one row an image, not {tuple(features.shape)}")
    return features.detach().float()


def _array(values, what: str, kinds: str, dimensions: int) -> np.ndarray:
    """An array from whatever holds one. UserError where its type is not of `kinds` (NumPy's letters), or its form other."""
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    elif isinstance(values, (str, os.PathLike)):
        try:
            values = np.load(Path(values))
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{what}: {values} is not a .npy file that can be read ({error})") from None
    values = np.asarray(values)
    if values.dtype.kind not in kinds or values.ndim != dimensions:
        raise UserError(
            f"{what} must be an array of {dimensions} dimension{'s' * (dimensions > 1)}, of numbers"
            f"{' or text' * ('U' in kinds)}, not of shape {values.shape} and type {values.dtype}"
        )
    return values


def _solver(model, head: str | Head | None) -> Head:
    """A copy of the head in evaluation mode: the caller's stays as it is."""
    own = getattr(model, "head", None)
    if head is None and isinstance(own, Head):
        head = own
    return (copy.deepcopy(head) if isinstance(head, Head) else heads.build(head or "proto")).eval()


def _embed(model: nn.Module, dataset: Dataset, split: str, transform: Callable[[Tensor], Tensor] | None) -> Tensor:
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    if transform is None and not isinstance(model, Model):  # ours normalises by itself
        transform = Normalise(dataset.mean, dataset.std).to(device)
    network = model if transform is None else lambda images: model(transform(images))
    with evaluating(model):
        return embed_split(network, dataset[split], Compute(device, "fp32"))


def _score(dataset: Dataset, tasks: Tasks, right: np.ndarray) -> Score:
    protocol, values = tasks.protocol, accuracies(right, tasks.protocol.queries)
    summary = summarise(values)
    return Score(
        dataset.name, tasks.sampler.split.name, protocol.ways, protocol.shots, protocol.queries, tasks.episodes,
        summary.accuracy, summary.std, summary.ci95, tasks.digest, tasks.frozen and tasks.frozen.name, dataset.fingerprint, values,
    )  # fmt: skip
