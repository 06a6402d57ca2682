"""Backbone, head and normalisation put together: what training changes and a run folder keeps."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from fewshot import backbones, heads, transforms
from fewshot.backbones import Backbone
from fewshot.classifiers import Classifier, Form
from fewshot.core import sealed, typed
from fewshot.core.compute import Compute, full_fp32
from fewshot.core.errors import UserError
from fewshot.core.modes import evaluating
from fewshot.core.seeding import seeded
from fewshot.core.tensors import serialised
from fewshot.data.augment import to_unit
from fewshot.data.images import Normalise, as_tensor
from fewshot.heads import Head
from fewshot.runs import Run
from fewshot.transforms import Transform


class Model(nn.Module):
    """`model(images)` embeds (N, 3, S, S) in [0, 1]; `model.solve` solves episodes of embeddings."""

    def __init__(
        self,
        backbone: Backbone,
        head: Head,
        normalise: Normalise,
        transform: Transform,
        classifier: Classifier | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.normalise = normalise
        self.transform = transform
        self.classifier = classifier
        """Of the base classes, if supervised training has left one."""
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, S, S) in [0, 1] -> (N, D)."""
        return self.backbone(self.normalise(self.backbone.on_images(images)))

    def solve(self, support: Tensor, labels: Tensor, query: Tensor, ways: int) -> Tensor:
        """Embeddings of support (T, N, D) and query (T, Q, D), labels (T, N) in 0..W-1 -> logits (T, Q, W), float32."""
        with torch.autocast(support.device.type, enabled=False):
            support, query = self.transform(support.float()), self.transform(query.float())
        return self.head(support, labels, query, ways)

    @torch.no_grad()
    def embed(self, images) -> Tensor:
        """uint8 images (N, S, S, 3), array or tensor -> float32 embeddings (N, D), in evaluation mode.

        Raises UserError if the images are not uint8, or not of the size that the network was built for.
        """
        images = as_tensor(images)
        size = self.backbone.image_size
        if images.dtype != torch.uint8 or images.shape[1:] != (size, size, 3):
            given = f"{images.dtype} {tuple(images.shape)}"
            raise UserError(f"give uint8 images of shape (N, {size}, {size}, 3), not {given}")
        device = self.normalise.scale.device
        with evaluating(self), full_fp32():
            return torch.cat([self(to_unit(part.to(device))).float() for part in images.split(100)])

    def head_for(self, spec: str) -> Head:
        """Another head for the model's embeddings, in evaluation mode.

        If it is of the own head's class and has the same parameters, it takes those that the own head has learned.

        Raises UserError if there is no such head, if it cannot work on these embeddings, if it needs training and the
        model's head has not learned its parameters, and if a user's head looks at other queries without declaring it.
        """
        heads.check_declared(spec, self.backbone.features, self.backbone.map_shape)
        with seeded(0, "initialisation of the head"):
            head = heads.build(spec, self.backbone.features, self.backbone.map_shape)
        learned = self.head.state_dict() if type(head) is type(self.head) else None
        if learned is not None and _shapes(learned) == _shapes(head.state_dict()):
            head.load_state_dict(learned)
        elif learned is not None and head.needs_training:
            raise UserError(f"head {spec} has other parameters than the trained one: evaluate that one")
        else:
            heads.check_untrained(head)
        return head.eval()

    @property
    def parameter_count(self) -> int:
        """Of the embedding network, including its regularizers' trainable weights; without the head."""
        return sum(p.numel() for p in self.backbone.parameters())

    def serialised(self) -> bytes:
        """All weights and buffers as safetensors."""
        return serialised(self.state_dict())


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state.items()}


def build(
    backbone: str,
    reg: str,
    head: str,
    image_size: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int = 0,
    transform: str = "none",
    classifier: Form | None = None,
    begin: bool = True,
) -> Model:
    """The untrained model of these components. `mean` and `std` of each channel are those of images in [0, 1].

    If the network wants others, as with the weights that it was published with, those are used. With `begin`, the
    backbone gets the weights that its options name; without, weights are read from elsewhere.

    Backbone and head each draw their initial weights from their own generator, and regularizers draw after the layers
    of the backbone: no part's weights depend on what another part draws. Raises UserError for what cannot be built.
    """
    with seeded(seed, "initialisation"):
        network = backbones.build(backbone, reg, image_size, begin)
    with seeded(seed, "initialisation of the head"):
        solver = heads.build(head, network.features, network.map_shape)
    with seeded(seed, "initialisation of the classifier"):
        classes = Classifier(classifier, network.features) if classifier else None
    mean, std = network.normalisation or (mean, std)
    return Model(network, solver, Normalise(mean, std), transforms.build(transform, network.features), classes)


def load_run(run: Run, compute: Compute, trust: Sequence[str] = ()) -> Model:
    """The model of a run with its best weights, on the device, in evaluation mode.

    `trust`: users' modules and packages whose code may run, if the run names them (core/trust.py).

    Raises UserError if the run names other code that is not this user's own, and if the weights are missing, damaged or
    of another architecture.
    """
    run.check_code(trust)
    return load_own(run, compute)


def load_own(run: Run, compute: Compute) -> Model:
    """As `load_run`, for a run of this same process: its components are already imported."""
    config, (size, mean, std) = run.config, run.images
    model = build(
        config.backbone, config.reg, config.head, size, mean, std, transform=config.transform,
        classifier=_classifier(run), begin=False,
    )  # fmt: skip
    try:
        model.load_state_dict(_tensors(run, run.weights()))
    except RuntimeError:
        raise UserError(f"{run.best_path} holds weights of another network than {config.backbone}") from None
    return model.to(compute.device).eval()


def with_weights(model: Model, weights: bytes, compute: Compute) -> Model:
    """The model with these weights, as `Model.serialised` gave them, on the device, in evaluation mode."""
    model.load_state_dict(safetensors.torch.load(weights))
    return model.to(compute.device).eval()


def _classifier(run: Run) -> Form | None:
    """The classifier of the base classes that a run was trained with, if any."""
    written = run.resolved.get("classifier")
    if written is None:
        return None
    if mistake := typed.wrong(written, typing.get_type_hints(Form), ("kind", "classes")):
        raise UserError(f"{run.folder / 'config.json'} is damaged: in 'resolved', the classifier: {mistake}")
    return Form(**written)


def begin_with(model: Model, run: Run) -> str:
    """Give the model's backbone a run's best weights, whatever regularizers either has. Returns the weights' digest.

    Raises UserError if the run has no weights, or has those of another network.
    """
    data = run.weights()
    ours = {name for name in model.backbone.state_dict() if not name.startswith("regs.")}
    theirs = {
        name.removeprefix("backbone."): tensor
        for name, tensor in _tensors(run, data).items()
        if name.startswith("backbone.") and not name.startswith("backbone.regs.")
    }
    shapes = {name: tensor.shape for name, tensor in model.backbone.state_dict().items()}
    if ours != theirs.keys() or any(theirs[name].shape != shapes[name] for name in ours):
        raise UserError(f"--init {run.folder}: it holds weights of another network ({run.config.backbone})")
    model.backbone.load_state_dict(theirs, strict=False)
    return sealed.sha256(data)


def _tensors(run: Run, weights: bytes) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(weights)
    except SafetensorError as error:
        raise UserError(f"{run.best_path} is damaged ({error}); train again") from None
