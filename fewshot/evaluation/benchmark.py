"""Score any network, or features that are already computed, on the standard tasks: `fewshot.benchmark`."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from fewshot import heads, transforms
from fewshot.config import MOST_EPISODES
from fewshot.core import typed
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.core.modes import evaluating
from fewshot.core.seeding import seeded
from fewshot.data import Dataset, default_dataset, open_dataset
from fewshot.data.augment import to_unit
from fewshot.data.images import Normalise
from fewshot.episodes import Protocol, Tasks, frozen
from fewshot.episodes.sampler import protocol_name
from fewshot.evaluation import arrays, folding
from fewshot.evaluation.arrays import Array
from fewshot.evaluation.embed import Base, check_embeddings, check_finite, embed_base, embed_split
from fewshot.evaluation.solve import accuracies, solve_episodes, wants_base
from fewshot.evaluation.statistics import summarise
from fewshot.heads import Head
from fewshot.model import Model
from fewshot.transforms import Transform


@dataclass(frozen=True)
class Score:
    """One line of a benchmark; accuracies are fractions of 1. `print` shows it as one line of text."""

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
    setting: str
    """"inductive", or "transductive" where the head saw all queries of a task together. Never rank the two together."""
    query_alpha: float | None
    """Dirichlet's concentration, where numbers of queries are drawn; None for balanced tasks. Never rank the two
    together."""
    accuracies: np.ndarray = field(repr=False, compare=False)
    """(episodes,) float64: to compare two networks task by task, `evaluation.statistics.paired_difference`."""

    def __str__(self) -> str:
        task = f"{self.dataset} {self.split}, {protocol_name(self.ways, self.shots, self.query_alpha)}"
        task += ", transductive" * (self.setting == "transductive")
        return f"{task}: {100 * self.accuracy:.2f} ± {100 * self.ci95:.2f} % ({self.episodes:,} episodes)"


def benchmark(
    model: nn.Module | Array,
    dataset: str | Dataset | None = None,
    head: str | Head | None = None,
    shots: int | Sequence[int] = (1, 5),
    *,
    transform: str | Transform | None = None,
    labels: Array | None = None,
    base: Array | None = None,
    base_labels: Array | None = None,
    split: str = "test",
    ways: int = 5,
    queries: int = 15,
    query_alpha: float | None = None,
    episodes: int = 10_000,
    preprocess: Callable[[Tensor], Tensor] | None = None,
    data_root: str | os.PathLike | None = None,
) -> list[Score]:
    """5-way 1- and 5-shot accuracy of `model` on a prepared data set: one Score for each of `shots`.

    model: any module that maps images to vectors, scored in evaluation mode where it is (CPU or GPU); or features
        (N, D) of images in the order of `dataset[split]`, or with `labels` (N,) of any images: tensor, array, or .npy.
    dataset: its name, or an opened one; by default the commands' (mini-imagenet where it is prepared, else glyphs).
        Features with labels have none.
    head: a spec such as "r2d2:lam=10", or a head; by default that of a model from `fewshot.load`, and proto for others.
    transform: of the embeddings, before the head: a spec such as "center+l2", or a transform; by default that of a
        model from `fewshot.load`, and none for others.
    base: features (M, D) of the base classes, where `model` is features and the transform or head is fitted on them.
        They are in the order of `dataset["train"]`, unless `base_labels` (M,) says of which class each image is.
        A module embeds the training split by itself.
    query_alpha: the numbers of queries of each class are drawn from Dirichlet of this concentration, `queries` on
        average (Veilleux et al., NeurIPS 2021, take 2); None: each class has `queries`.
    preprocess: makes what the model wants of images (B, 3, S, S) in [0, 1], such as a torchvision weights'
        `transforms()`; by default they are normalised with the training split's mean and standard deviation.
    data_root: of prepared data sets; by default $FEWSHOT_DATA, else "data".

    Raises UserError (a ValueError) for a data set that is not there, too small for the tasks or not the frozen list's,
    for features of another number than the images, where base features are needed and missing, and for values that are
    not finite, naming the first image. Warns where the pixels are not those of the list's reference copy, and where the
    model returns the output of a linear layer, which may be a classifier's class scores.
    """
    if typed.integer(episodes, "episodes", 0, MOST_EPISODES) < 2:
        raise UserError(f"episodes={episodes}: an interval needs at least 2")
    form = {name: typed.integer(value, name) for name, value in (("ways", ways), ("queries", queries))}
    each_shots = [typed.integer(n, "shots") for n in (shots if isinstance(shots, Iterable) else [shots])]
    if not each_shots:
        raise UserError("shots is empty: give at least one number")
    solver, mapped = _solver(model, head, transform)
    _check_arguments(model, dataset, labels, base, base_labels, preprocess, split)
    if labels is not None and not isinstance(model, nn.Module):
        dataset, features = arrays.labelled(model, labels, split)
    elif not isinstance(dataset, Dataset):
        root = data_root or os.environ.get("FEWSHOT_DATA") or "data"
        dataset = open_dataset(dataset or default_dataset(root)[0], root)
    if mistake := typed.wrong({"query_alpha": query_alpha}, {"query_alpha": float | None}):
        raise UserError(mistake)
    protocols = [Protocol(shots=n, query_alpha=query_alpha, **form) for n in dict.fromkeys(each_shots)]
    wanted = [frozen.standard_tasks(dataset, split, protocol, episodes) for protocol in protocols]
    if warning := frozen.pixel_warning(dataset, wanted):
        warnings.warn(warning, stacklevel=2)
    fitted_on = None
    if isinstance(model, nn.Module):
        features, fitted_on = _embed(model, dataset, split, preprocess, wants_base(solver, mapped))
    else:
        if labels is None:
            features = arrays.features(model, len(dataset[split].images))
        check_finite(features, dataset[split])
        if base is not None:
            fitted_on = arrays.base(base, base_labels, dataset.splits.get("train"), features)
    with seeded(0, "initialisation of the head"):
        heads.begin(solver, features.shape[1], model.backbone.map_shape if isinstance(model, Model) else None)
    device = features.device
    scored = solve_episodes(solver.to(device), features, wanted, mapped.to(device), fitted_on)
    return [_score(dataset, tasks, right, solver) for tasks, right in zip(wanted, scored, strict=True)]


def _check_arguments(model, dataset, labels, base, base_labels, preprocess, split) -> None:
    """UserError for arguments that do not go together."""
    module = isinstance(model, nn.Module)
    if module and labels is not None:
        raise UserError("labels belong to features; a module is scored on a data set")
    if module and base is not None:
        raise UserError("base belongs to features; a module embeds the training split by itself where it is needed")
    if not module and preprocess is not None:
        raise UserError("preprocess is for the images that a module embeds; these are features")
    if labels is not None and dataset is not None:
        raise UserError("features with labels have no dataset; leave one of the two out")
    if base is None and base_labels is not None:
        raise UserError("base_labels are those of base: give base, too")
    for value, name, kinds in ((dataset, "dataset", (str, Dataset)), (split, "split", (str,))):
        if value is not None and not isinstance(value, kinds):
            raise UserError(f"{name}={value!r}: give a name{' or an opened data set' if name == 'dataset' else ''}")


def _solver(model, head: str | Head | None, transform: str | Transform | None) -> tuple[Head, Transform]:
    """Copies of the head and the transform in evaluation mode: the caller's stay as they are."""
    for value, name, kind in ((head, "head", Head), (transform, "transform", Transform)):
        if value is not None and not isinstance(value, (str, kind)):
            raise UserError(f"{name}={value!r}: give its name, or an object of fewshot's class {kind.__name__}")
    if isinstance(model, Model):
        head = model.head_for(head) if isinstance(head, str) else head or model.head
        transform = transform or model.transform
    head = copy.deepcopy(head) if isinstance(head, Head) else heads.build(head or "proto")
    if head.made_for is None:
        heads.check_untrained(head)
    mapped = copy.deepcopy(transform) if isinstance(transform, Transform) else transforms.build(transform or "none")
    return head.eval(), mapped.eval()


def _embed(
    model: nn.Module, dataset: Dataset, split: str, preprocess: Callable[[Tensor], Tensor] | None, with_base: bool
) -> tuple[Tensor, Base | None]:
    """Embeddings of a split, and of the training split if that is asked for."""
    device = next((weight.device for weight in model.parameters()), torch.device("cpu"))
    if preprocess is None and not isinstance(model, Model):  # ours normalises by itself
        preprocess = Normalise(dataset.mean, dataset.std).to(device)
    network = model if preprocess is None else lambda images: model(preprocess(images))
    compute = Compute(device, "fp32")
    with evaluating(model):
        image = to_unit(torch.from_numpy(np.array(dataset[split].images[:1])).to(device))
        with _last_linear(model) as layer, torch.no_grad():
            returned = network(image)
            name = layer(returned)
        check_embeddings(returned, 1)
        if name:  # the network is more than this layer
            warnings.warn(
                f"the network returns the output of its linear layer {name!r}: if that is a classifier, replace it by"
                " torch.nn.Identity(), for its class scores are no embedding",
                stacklevel=3,
            )
        if network is model and isinstance(model, Model):  # as `evaluate` embeds it
            network = folding.folded(model)
        at_once = folding.batch(model, compute)
        embeddings = embed_split(network, dataset[split], compute, at_once)
        return embeddings, embed_base(network, dataset["train"], compute, at_once) if with_base else None


@contextmanager
def _last_linear(model: nn.Module) -> Iterator[Callable[[Tensor], str | None]]:
    """A function that says which linear layer an output of the model came from, unchanged; None if from none."""
    outputs: list[tuple[str, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: outputs.append((name, output)))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield lambda returned: next((name for name, output in outputs if output is returned), None)
    finally:
        for hook in hooks:
            hook.remove()


def _score(dataset: Dataset, tasks: Tasks, right: np.ndarray, head: Head) -> Score:
    protocol, values = tasks.protocol, accuracies(right, tasks.protocol.queries)
    summary = summarise(values)
    return Score(
        dataset.name, tasks.sampler.split.name, protocol.ways, protocol.shots, protocol.queries, tasks.episodes,
        summary.accuracy, summary.std, summary.ci95, tasks.digest, tasks.frozen.name if tasks.frozen else None,
        dataset.fingerprint, head.setting, protocol.query_alpha, values,
    )  # fmt: skip
