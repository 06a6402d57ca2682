"""Any classification network of torchvision, such as `torchvision:resnet18`; without its classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from fewshot.backbones._collected import Collected, Statistics, check_size, not_there, optional
from fewshot.core.errors import UserError

_CLASSES = 1000  # ImageNet's, of every network there
_FIXED = {"vit": "image_size", "maxvit": "input_size"}  # networks for one size of images, and the parameter for it
_FIXED_SIZE = 224
_AUXILIARY = ("AuxLogits", "aux1", "aux2")  # classifiers that are for training on ImageNet


class Torchvision(Collected):
    """`torchvision:NAME`: images to what the network gives its classifier. Sites have the names of its modules.

    In the ResNets, site numbers 1 to 4 stand for `layer1` to `layer4`. A network's own dropout and stochastic depth are
    off, as timm's are by default: only `--reg` regularizes.

    - `name`: as `torchvision.models.list_models(torchvision.models)` lists it. As the first value it needs no `name=`:
      `torchvision:resnet18,size=128`.
    - `pretrained`: start from the weights that torchvision calls its default, which it downloads.
    - `weights`: start from a file that you have, .safetensors or .pth: a state dict, with or without the classifier.
    - `size`: side in pixels to which images are resized within the network (bilinear, antialiased). By default they are
      not resized, except for a network that takes only one size: to 224.
    - `normalise`: by the mean and standard deviation of the "dataset", or by those that the published "weights" want;
      "auto" is "weights" if it starts from weights, else "dataset".
    """

    def __init__(
        self,
        image_size: int = 84,
        *,
        name: str,
        pretrained: bool = False,
        weights: str | None = None,
        size: int | None = None,
        normalise: Statistics = "auto",
    ) -> None:
        models, label = optional("torchvision.models", "torchvision"), f"torchvision:{name}"
        check_size(label, size)
        names = models.list_models(module=models)
        if name not in names:
            raise not_there("torchvision", name, names, "torchvision.models.list_models(torchvision.models)")
        sized = _FIXED.get(name.partition("_")[0])
        side = size or (_FIXED_SIZE if sized else None)
        keywords: dict[str, Any] = {}
        if sized:
            keywords[sized] = side if sized == "image_size" else (side, side)
        auxiliary: tuple[str, ...] = ()
        if name in ("googlenet", "inception_v3"):  # they change ImageNet's normalisation into another
            begun = pretrained or weights is not None
            auxiliary = _AUXILIARY
            keywords |= {"aux_logits": False, "init_weights": True, "transform_input": begun}
        try:
            network = models.get_model(name, weights=None, **keywords)
        except (AssertionError, ValueError, RuntimeError) as error:
            raise UserError(f"{label},size={side}: {str(error).splitlines()[0]}") from None
        classifier = _classifier(network, label)
        network.set_submodule(classifier, nn.Identity())
        _without_dropout(network)
        images = models.get_model_weights(name).DEFAULT.transforms()
        super().__init__(
            image_size, network, label, removed=(classifier, *auxiliary),
            published=(tuple(images.mean), tuple(images.std)), published_size=images.crop_size[0],
            stages=[f"layer{number}" for number in range(1, 5)], size=side, pretrained=pretrained, weights=weights,
            normalise=normalise,
        )  # fmt: skip

    def published_weights(self) -> tuple[Mapping[str, Tensor], str]:
        """See Collected.published_weights."""
        models = optional("torchvision.models", "torchvision")
        weights = models.get_model_weights(self.label.partition(":")[2]).DEFAULT
        return weights.get_state_dict(progress=False, check_hash=True), f"{self.label}.{weights.name}"


def _without_dropout(network: nn.Module) -> None:
    """Switch off what drops something in training: with it, `--reg none` would not be none."""
    operations = optional("torchvision.ops", "torchvision")
    for module in network.modules():
        if isinstance(module, (nn.modules.dropout._DropoutNd, operations.StochasticDepth)):
            module.p = 0.0


def _classifier(network: nn.Module, label: str) -> str:
    """The name of the last layer with one output per class."""
    found = [
        name
        for name, module in network.named_modules()
        if getattr(module, "out_features", getattr(module, "out_channels", None)) == _CLASSES
        and isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if not found:
        raise UserError(f"{label}: its classifier was not found; wrap it yourself (docs/your-own-backbone.md)")
    return found[-1]
