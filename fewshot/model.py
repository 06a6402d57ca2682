"""Backbone, head and normalisation put together: what training changes and a run folder keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewshot import backbones, heads
from fewshot.config import TrainConfig
from fewshot.core.compute import Compute
from fewshot.core.errors import UserError
from fewshot.core.files import write_atomic
from fewshot.data.augment import to_unit
from fewshot.data.images import Normalise, as_tensor
from fewshot.runs import Run


class Model(nn.Module):
    """`model(images)` embeds (N, 3, S, S) in [0, 1]; `model.head` solves episodes."""

    def __init__(self, config: TrainConfig, image_size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.backbone = backbones.build(config.backbone, config.reg, image_size)
        self.head = heads.build(config.head)
        self.normalise = Normalise(mean, std)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, guide=None) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, D)."""
        return self.backbone(self.normalise(self.backbone.on_images(images)), guide)

    @torch.no_grad()
    def embed(self, images) -> Tensor:
        """uint8 images (N, S, S, 3), array or tensor -> float32 embeddings (N, D), in evaluation mode.

        UserError where the images are not of the size that the network was built for.
        """
        images = as_tensor(images)
        size = self.backbone.image_size
        if images.dtype != torch.uint8 or images.shape[1:] != (size, size, 3):
            given = f"{images.dtype} {tuple(images.shape)}"
            raise UserError(f"give uint8 images of shape (N, {size}, {size}, 3), not {given}")
        device = self.normalise.scale.device
        with evaluating(self):
            return torch.cat([self(to_unit(part.to(device))).float() for part in images.split(100)])

    @property
    def parameter_count(self) -> int:
        """Of the embedding network, its regularizers' trainable weights included; the head apart."""
        return sum(p.numel() for p in self.backbone.parameters())

    def save(self, path: Path) -> None:
        """All weights and buffers as safetensors, atomically."""
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        write_atomic(path, safetensors.torch.save(tensors))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; then each part is in the mode that it was in, also one that was frozen."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training


def load_run(run: Run, compute: Compute) -> Model:
    """The model of a run with its best weights, on the device, in evaluation mode.

    UserError where the weights are missing, damaged or of another architecture.
    """
    facts = run.resolved
    model = Model(run.config, facts["image_size"], tuple(facts["mean"]), tuple(facts["std"]))
    if not run.best_path.is_file():
        raise UserError(f"{run.folder} has no weights ({run.best_path.name}): finish its training with --resume")
    try:
        model.load_state_dict(safetensors.torch.load_file(run.best_path))
    except (SafetensorError, OSError) as error:
        raise UserError(f"{run.best_path} is damaged ({error}); train again") from None
    except RuntimeError:
        raise UserError(f"{run.best_path} holds weights of another network than {run.config.backbone}") from None
    return model.to(compute.device).eval()
