"""learn2learn's ProtoNet on our images: what its training and its test share."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from common import Declined
from torch import Tensor, nn

from fewshot.config import TrainConfig
from fewshot.data import Split


class Peer:
    """Its Conv-4 and its tasks, as its mini-ImageNet example puts them together; `image(n)` gives image n as a tensor.

    From learn2learn: MetaDataset, Taskset, the transforms NWays, KShots, LoadData, RemapLabels, ConsecutiveLabels, and
    CNN4Backbone. Also as in its example: a DataLoader of tasks without workers.
    """

    def __init__(self, config: TrainConfig, split: Split, image: Callable[[int], Tensor]) -> None:
        if config.backbone != "conv4":
            raise Declined("compared on its Conv-4")
        if importlib.util.find_spec("learn2learn") is None:
            raise Declined("not installed: sh scripts/install_learn2learn.sh PYTHON, then --learn2learn PYTHON")
        import learn2learn as l2l

        torch.set_num_threads(config.threads)
        self.version, self.ways, self.device = l2l.__version__, config.ways, torch.device(config.device)
        labels = split.labels.tolist()

        class Images(torch.utils.data.Dataset):
            def __len__(self) -> int:
                return len(labels)

            def __getitem__(self, number: int) -> tuple[Tensor, int]:
                return image(number), labels[number]

        self.images = l2l.data.MetaDataset(Images(), indices_to_labels=dict(enumerate(labels)))
        network = l2l.vision.models.CNN4Backbone(hidden_size=64, channels=3, max_pool=True)
        self.network: nn.Module = network.to(self.device)

    def tasks(self, per_class: int) -> Any:
        """An endless loader of tasks with `per_class` images a class."""
        from learn2learn.data import Taskset
        from learn2learn.data.transforms import ConsecutiveLabels, KShots, LoadData, NWays, RemapLabels

        images = self.images
        choose = [NWays(images, self.ways), KShots(images, per_class), LoadData(images), RemapLabels(images)]
        tasks = Taskset(images, task_transforms=[*choose, ConsecutiveLabels(images)])
        return torch.utils.data.DataLoader(tasks, shuffle=True, pin_memory=self.device.type == "cuda")

    def solve(self, tasks: Any, shots: int) -> tuple[Tensor, Tensor]:
        """Of its next task, the queries' squared distances to the prototypes (W*Q, W), and their labels (W*Q,)."""
        x, y = (part.squeeze(0).to(self.device) for part in next(iter(tasks)))
        z = self.network(x).unflatten(0, (self.ways, -1))  # (W, S+Q, D)
        distances = (z[:, shots:, None] - z[:, :shots].mean(1)).square().sum(3)  # (W, Q, W)
        return distances.flatten(0, 1), y.view(self.ways, -1)[:, shots:].flatten()
