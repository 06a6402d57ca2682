"""Score any network, or features that are already computed, on the standard tasks: `fewshot.benchmark`."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from fewshot import heads, transforms
from fewshot.core import sources, typed
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.core.modes import evaluating
from fewshot.core.seeding import seeded
from fewshot.data import Dataset, opened
from fewshot.data.augment import to_unit
from fewshot.data.images import Normalise
from fewshot.episodes import Tasks, frozen
from fewshot.evaluation import arrays, classify, folding, foreign, naming
from fewshot.evaluation.arrays import Array
from fewshot.evaluation.embed import Base, check_embeddings, check_finite, embed_base, embed_split
from fewshot.evaluation.foreign import Origin
from fewshot.evaluation.score import disjoint_tasks, users_code
from fewshot.evaluation.scores import Score, protocols
from fewshot.evaluation.solve import prepare, solve_episodes, wants_base
from fewshot.heads import Head
from fewshot.model import Model
from fewshot.transforms import Transform
from fewshot.transforms.none import Identity


class FitPredict(Protocol):
    """A classifier like those of scikit-learn: `fit(X, y)`, then `predict(X)`."""

    def fit(self, X: np.ndarray, y: np.ndarray, /) -> Any:
        """Learn from support features (N, D) float64 and their classes (N,)."""

    def predict(self, X: np.ndarray, /) -> np.ndarray:
        """Classes (Q,) of query features (Q, D)."""


def benchmark(
    model: nn.Module | Array,
    dataset: str | Dataset | None = None,
    head: str | Head | FitPredict | None = None,
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
    jobs: int = 0,
    out: str | os.PathLike | None = None,
    origin: Origin | None = None,
) -> list[Score]:
    """5-way 1- and 5-shot accuracy of `model` on a prepared data set: one Score for each of `shots`.

    model: any module that maps images to vectors, scored in evaluation mode on its own device (CPU or GPU); or features
        (N, D) of the images in the order of `dataset[split]`, or, with `labels` (N,), of any images: tensor, array, or
        .npy file.
    dataset: its name, or an opened one; by default the commands' (mini-imagenet if it is prepared, else glyphs).
        Features with labels have none.
    head: a spec such as "r2d2:lam=10", a head, or any classifier with `fit` and `predict`, such as scikit-learn's
        LinearSVC(): each task gets an unfitted copy of it. By default that of a model from `fewshot.load`, and proto
        for others.
    transform: of the embeddings, before the head: a spec such as "center+l2", or a transform; by default that of a
        model from `fewshot.load`, and none for others.
    base: features (M, D) of the base classes, if `model` is features and the transform or head is fitted on them.
        They are in the order of `dataset["train"]`, unless `base_labels` (M,) gives the class of each image.
        A module embeds the training split of `dataset` itself. (`evaluate` takes that of the run's own data set.)
    query_alpha: the numbers of queries of each class are drawn from a Dirichlet distribution of this concentration,
        `queries` on average (Veilleux et al., NeurIPS 2021, take 2); None: each class has `queries`.
    preprocess: turns images (B, 3, S, S) in [0, 1] into what the model takes, such as the `transforms()` of torchvision
        weights; by default they are normalised with the training split's mean and standard deviation.
    data_root: folder of prepared data sets; by default $FEWSHOT_DATA, else "data".
    jobs: processes in which a classifier solves tasks, through joblib; 0: one for each core, or none if that is not
        worth it.
    out: a run folder to make, which compare, leaderboard and show curves treat like one of training; the network is not
        in it.
    origin: what you say there about the network: its name, how and on what it was trained, and with which seed.

    Raises UserError (a ValueError) if the data set is missing, too small for the tasks or not that of the frozen list;
    if there is not one row of features for each image; if base features are needed and missing; if values are not
    finite, naming the first image; if `out` exists; and for the first task in which a classifier fails. Warns if the
    pixels are not those of the list's reference copy, and if the model returns the output of a linear layer, which may
    be a classifier's class scores.
    """
    forms = protocols(shots, ways, queries, episodes, query_alpha)
    jobs = typed.integer(jobs, "jobs")
    foreign.check_out(out, origin)
    _check_arguments(model, dataset, labels, base, base_labels, preprocess, split, out)
    solver, mapped, names = _solver(model, head, transform)
    code = _users_code(solver, mapped) if out is not None else ""
    if labels is not None and not isinstance(model, nn.Module):
        dataset, features = arrays.labelled(model, labels, split)
    else:
        dataset = opened(dataset, data_root)
    wanted = [frozen.standard_tasks(dataset, split, protocol, episodes) for protocol in forms]
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
    tasks = wanted if out is None else [*wanted, *disjoint_tasks(wanted)]
    scored = _solve(solver, mapped, features, tasks, fitted_on, jobs)
    if out is not None:
        about = foreign.Solver(
            setting=solver.setting, digest=foreign.digest(features), features=features.shape[1], code=code, **names
        )
        foreign.keep(out, origin or Origin(), about, dataset, tasks, scored, Compute(features.device, "fp32"))
    return [Score.of(dataset, *each, solver.setting) for each in zip(wanted, scored, strict=False)]


def _check_arguments(model, dataset, labels, base, base_labels, preprocess, split, out) -> None:
    """Raise UserError for arguments that do not go together."""
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
    if labels is not None and out is not None:
        raise UserError("a run says on which images it was scored, and labels do not: prepare a data set for out")
    for value, name, kinds in ((dataset, "dataset", (str, Dataset)), (split, "split", (str,))):
        if value is not None and not isinstance(value, kinds):
            raise UserError(f"{name}={value!r}: give a name{' or an opened data set' if name == 'dataset' else ''}")


class _Classifier(Head):
    """A classifier with `fit` and `predict`, used as a head: evaluation/classify.py solves tasks with it."""

    trainable = False

    def __init__(self, classifier: FitPredict) -> None:
        super().__init__()
        self.classifier = classifier


def _solver(
    model, head: str | Head | FitPredict | None, transform: str | Transform | None
) -> tuple[Head, Transform, dict[str, Any]]:
    """Copies of the head and the transform in evaluation mode (the caller's are not changed), and what they are called.

    The names are fields of `foreign.Solver`.
    """
    if classify.is_classifier(head):
        head = _Classifier(cast(FitPredict, head))
    for value, name, kind in ((head, "head", Head), (transform, "transform", Transform)):
        if value is not None and not isinstance(value, (str, kind)):
            either = " or a classifier with fit and predict" * (name == "head")
            raise UserError(f"{name}={value!r}: give its name, or an object of fewshot's class {kind.__name__}{either}")
    ours, given = isinstance(model, Model), (head, transform)
    if ours:
        head = model.head_for(head) if isinstance(head, str) else head or model.head
        transform = transform or model.transform
    solver = copy.deepcopy(head) if isinstance(head, Head) else heads.build(cast(str, head or "proto"))
    if solver.made_for is None:
        heads.check_untrained(solver)
    mapped = copy.deepcopy(transform) if isinstance(transform, Transform) else transforms.build(transform or "none")
    names: dict[str, Any] = {
        "network": type(model.backbone if ours else model).__name__ if isinstance(model, nn.Module) else "features",
        "head": given[0] if isinstance(given[0], str) else _name(solver) if head else "proto",
        "transform": given[1] if isinstance(given[1], str) else _transform_name(mapped),
    }
    if isinstance(model, nn.Module):
        names["parameters"] = sum(weight.numel() for weight in model.parameters())
    return solver.eval(), mapped.eval(), names


def _users_code(solver: Head, mapped: Transform) -> str:
    """As `users_code`; for a classifier, that of its class, if the class is in a file of the user."""
    if isinstance(solver, _Classifier) and sources.is_users(type(solver.classifier).__module__):
        return users_code(solver.classifier, mapped)
    return users_code(solver, mapped)


def _name(head: Head) -> str:
    """The name of a head that was given as an object."""
    return naming.name(head.classifier) if isinstance(head, _Classifier) else naming.module_name(head)


def _transform_name(transform: Transform) -> str:
    """The name of a transform that was given as an object, or is a model's own."""
    return "none" if isinstance(transform, Identity) else naming.module_name(transform)


def _solve(
    solver: Head, mapped: Transform, features: Tensor, tasks: Sequence[Tasks], base: Base | None, jobs: int
) -> list[np.ndarray]:
    """Right queries of each class in each episode, (episodes, W), for each of `tasks`."""
    device = features.device
    if not isinstance(solver, _Classifier):
        return solve_episodes(solver.to(device), features, tasks, mapped.to(device), base)
    with torch.no_grad():
        embeddings = prepare(solver, features, mapped.to(device), base)
    return classify.solve(solver.classifier, embeddings.cpu().numpy(), tasks, jobs)


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
            network = folding.folded(model, compute)
        at_once = folding.batch(model, compute)
        embeddings = embed_split(network, dataset[split], compute, at_once)
        return embeddings, embed_base(network, dataset["train"], compute, at_once) if with_base else None


@contextmanager
def _last_linear(model: nn.Module) -> Iterator[Callable[[Tensor], str | None]]:
    """A function that names the linear layer whose output the model returned unchanged; None if there is none."""
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
