"""learn2learn (Arnold et al., 2020): our data and tasks in its form, its MAML and ANIL around our backbones.

    from fewshot.interop import learn2learn as l2l

    dataset = fewshot.open_dataset("glyphs")
    tasks = l2l.taskset(frozen.standard_tasks(dataset, "test", Protocol(5, 1, 15), 600))   # its Taskset, of our tasks
    maml = l2l.maml(fewshot.backbones.build("conv4", image_size=32), dataset, ways=5, lr=0.5)
    logits = maml(support, labels, query)                                           # differentiable, for meta-training
    l2l.evaluate(maml, dataset, shots=1, out="runs/maml")                           # a row of the leaderboard

examples/maml.py trains one. Importing this module needs learn2learn; without it, a UserError says how to install it.

Images are float32 (3, S, S) in [0, 1]. Shapes: N support and Q query images a task, W ways (classes).
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fewshot.backbones import Backbone
from fewshot.core.errors import UserError
from fewshot.data import Dataset, Split
from fewshot.data.augment import to_unit
from fewshot.data.images import Normalise, as_tensor
from fewshot.episodes import Tasks
from fewshot.evaluation.adapt import evaluate_learner
from fewshot.evaluation.scores import Score

try:
    from learn2learn.algorithms import MAML
    from learn2learn.data import MetaDataset, Taskset
except ImportError as error:
    raise UserError(
        f"learn2learn is not installed ({error}): sh scripts/install_learn2learn.sh PYTHON; on Python 3.10 also pip"
        " install 'fewshot[interop]'"
    ) from None


class Images(torch.utils.data.Dataset):
    """A split's images and class numbers, one by one: (image (3, S, S), label)."""

    def __init__(self, split: Split, preprocess: Callable[[Tensor], Tensor] | None = None) -> None:
        self.split, self.preprocess = split, preprocess

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.batch(np.array([index]))[0], int(self.split.labels[index])

    def batch(self, index: np.ndarray) -> Tensor:
        """(B, 3, S, S) of images `index` (B,)."""
        images = to_unit(as_tensor(self.split.images[index]))
        return images if self.preprocess is None else self.preprocess(images)


def meta_dataset(split: Split, preprocess: Callable[[Tensor], Tensor] | None = None) -> MetaDataset:
    """A split of a prepared data set as learn2learn's MetaDataset, with its bookkeeping done.

    preprocess: applied to images (B, 3, S, S) in [0, 1]; none by default.
    """
    return MetaDataset(Images(split, preprocess), indices_to_labels=dict(enumerate(split.labels.tolist())))


class OurTasks(Taskset):
    """Our tasks as learn2learn's Taskset: task n is (images (W*(S+Q), 3, S, S), labels (W*(S+Q),) in 0..W-1).

    The images come class by class, the support images of each class first, so that
    `learn2learn.data.partition_task(images, labels, shots)` gives support and queries.
    """

    def __init__(self, meta: MetaDataset, tasks: Tasks) -> None:
        super().__init__(meta, num_tasks=tasks.episodes)
        self.tasks = tasks

    def __getitem__(self, n: int) -> tuple[Tensor, Tensor]:
        if not 0 <= n < self.tasks.episodes:
            raise IndexError(f"task {n} of {self.tasks.episodes}")
        index = self.tasks.sampler.draw(n, 1)[0]  # (W, S + Q)
        labels = torch.arange(len(index)).repeat_interleave(index.shape[1])
        return self.dataset.dataset.batch(index.ravel()), labels


def taskset(tasks: Tasks, preprocess: Callable[[Tensor], Tensor] | None = None) -> OurTasks:
    """Our tasks, such as `frozen.standard_tasks(...)`, as learn2learn's Taskset. `preprocess`: as for `meta_dataset`.

    Raises UserError for unbalanced tasks: learn2learn's `partition_task` assumes equally many images of every class.
    """
    if tasks.protocol.query_alpha is not None:
        raise UserError(f"{tasks.protocol}: learn2learn's tasks have as many queries of each class; give balanced ones")
    return OurTasks(meta_dataset(tasks.sampler.split, preprocess), tasks)


class Embedding(nn.Module):
    """Images (N, 3, S, S) in [0, 1] to embeddings (N, D), regularized in training mode, also in clones."""

    def __init__(self, backbone: Backbone, normalise: Normalise) -> None:
        super().__init__()
        self.backbone, self.normalise = backbone, normalise

    def forward(self, images: Tensor) -> Tensor:
        _own_hooks(self.backbone)
        return self.backbone(self.normalise(self.backbone.on_images(images)))


def _own_hooks(backbone: Backbone) -> None:
    """Let the hooks of a clone run its own regularizers: learn2learn clones modules, and its clones share their hooks.

    Without this, a clone would run the original's regularizers, in the original's mode and with its weights.
    """
    for module in backbone.modules():
        others = {
            key: hook
            for key, hook in module._forward_hooks.items()
            if isinstance(hook, partial) and isinstance(owner := getattr(hook.func, "__self__", None), Backbone)
            if owner is not backbone
        }
        if others:
            own = {key: partial(getattr(backbone, hook.func.__name__), *hook.args) for key, hook in others.items()}
            module._forward_hooks = OrderedDict(module._forward_hooks | own)


class Adapter(nn.Module):
    """Adapts to each task by gradient steps: `adapter(support, labels, query)` gives the logits (Q, W) after them.

    `algorithm` is learn2learn's MAML around what adapts: the whole network, or its classifier, on top of `fixed`.
    Gradients of the logits reach the weights from which adaptation begins. Call `adapter.backbone.begin_step` before
    each step of the optimizer, as for any of our backbones. `method`: its name in results.
    """

    def __init__(self, method: str, fixed: nn.Module, algorithm: MAML, steps: int) -> None:
        super().__init__()
        self.method, self.fixed, self.algorithm, self.steps = method, fixed, algorithm, steps

    @property
    def backbone(self) -> Backbone:
        """The backbone inside."""
        return next(module for module in self.modules() if isinstance(module, Backbone))

    def adapted(self, support: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
        """Images to logits, after `steps` steps on the cross-entropy of support (N, 3, S, S) and labels (N,)."""
        clone, inputs = self.algorithm.clone(), self.fixed(support)
        for _ in range(self.steps):
            clone.adapt(F.cross_entropy(clone(inputs), labels))
        return lambda images: clone(self.fixed(images))

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        """Logits (Q, W) of query images."""
        return self.adapted(support, labels)(query)


def maml(
    backbone: Backbone,
    dataset: Dataset,
    ways: int = 5,
    *,
    lr: float,
    steps: int = 1,
    first_order: bool = False,
) -> Adapter:
    """MAML (Finn, Abbeel & Levine, ICML 2017): all weights adapt, including those of a linear classifier for `ways`.

    dataset: its training split's mean and standard deviation normalise images. lr, steps: of the adaptation.

    The classifier's first weights are zero, so that it does not matter which class has which number (Ye & Chao, ICLR
    2022), and the first step is already one towards class means. Raises UserError for a backbone whose regularizers
    need class weights (camdrop).
    """
    embedding, classifier = _parts(backbone, dataset, ways)
    # The gradient may not reach a regularizer's own weights, such as TargetDrop's.
    algorithm = MAML(nn.Sequential(embedding, classifier), lr=lr, first_order=first_order, allow_unused=True)
    return Adapter("maml", nn.Identity(), algorithm, steps)


def anil(
    backbone: Backbone,
    dataset: Dataset,
    ways: int = 5,
    *,
    lr: float,
    steps: int = 1,
    first_order: bool = False,
) -> Adapter:
    """ANIL (Raghu et al., ICLR 2020): as `maml`, but only the classifier adapts; all tasks share the backbone."""
    embedding, classifier = _parts(backbone, dataset, ways)
    return Adapter("anil", embedding, MAML(classifier, lr=lr, first_order=first_order), steps)


def _parts(backbone: Backbone, dataset: Dataset, ways: int) -> tuple[Embedding, nn.Linear]:
    if backbone.guided:
        raise UserError("a regularizer of this backbone is guided by class weights, which MAML does not give: leave it")
    classifier = nn.Linear(backbone.features, ways)
    nn.init.zeros_(classifier.weight)
    nn.init.zeros_(classifier.bias)
    return Embedding(backbone, Normalise(dataset.mean, dataset.std)), classifier


class _Tested(nn.Module):
    """An adapter that is no longer trained: no gradient is kept, and the answers are the same."""

    def __init__(self, adapter: Adapter) -> None:
        super().__init__()
        adapter.algorithm.first_order = True
        self.adapter = adapter

    def forward(self, support: Tensor, labels: Tensor, query: Tensor) -> Tensor:
        adapted = self.adapter.adapted(support, labels)
        with torch.no_grad():
            return adapted(query)


def evaluate(
    adapter: Adapter, dataset: Dataset | str, *, batch_statistics: bool = False, **options: Any
) -> list[Score]:
    """`fewshot.evaluate_learner` on a copy in evaluation mode: no mask is drawn, and `adapter` is not changed.

    batch_statistics: batch norm takes its mean and variance from the images of the task, as in learn2learn's examples,
        rather than from training. Then a query's answer depends on the other queries: such results are transductive.
    options: of `evaluate_learner`: shots, episodes, out, origin and others; `name` is "maml" or "anil" by default.
        Raises UserError for setting, preprocess and device: these follow from the adapter and `batch_statistics`.
    """
    if own := {"setting", "preprocess", "device"} & options.keys():
        raise UserError(f"{', '.join(sorted(own))}: the adapter says it itself, and batch_statistics the setting")
    learner = _Tested(copy.deepcopy(adapter)).eval()
    if batch_statistics:
        for module in learner.modules():
            if isinstance(module, _BatchNorm):
                module.train()
    setting: Literal["inductive", "transductive"] = "transductive" if batch_statistics else "inductive"
    own_options = {"setting": setting, "preprocess": _unchanged, "device": str(next(learner.parameters()).device)}
    return evaluate_learner(learner, dataset, **{"name": adapter.method} | options | own_options)


def _unchanged(images: Tensor) -> Tensor:
    return images
