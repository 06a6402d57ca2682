"""Any timm network (Wightman, 2019), such as `timm:resnet18` or `timm:vit_tiny_patch16_224`; without its classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fewshot.backbones._collected import Collected, Statistics, check_size, not_there, optional
from fewshot.core.errors import UserError


class Timm(Collected):
    """`timm:NAME`: images to what the network gives its classifier. Sites have the names of its modules.

    Site numbers 1 to 4 stand for its last stages that give maps, if it has any. `pip install 'fewshot[timm]'`.

    - `name`: as `timm.list_models()` lists it, with or without the tag of its weights: `resnet18.a1_in1k`. As the first
      value it needs no `name=`: `timm:resnet18,size=128`.
    - `pretrained`: start from the weights that timm publishes, which it downloads.
    - `weights`: start from a file that you have, .safetensors or .pth: a state dict, with or without the classifier.
    - `size`: side in pixels to which images are resized within the network (bilinear, antialiased). By default they are
      not resized, except for a network that takes only one size: to that.
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
        timm, label = optional("timm", "timm"), f"timm:{name}"
        check_size(label, size)
        published = _published(timm, name)
        fixed = published["input_size"][-1] if published.get("fixed_input_size") else None
        keywords = {} if size in (None, fixed) or fixed is None else {"img_size": size}
        self._build: Mapping[str, Any] = {"model_name": name, "num_classes": 0, **keywords}
        try:
            network = timm.create_model(**self._build)
        except TypeError:  # of its constructor
            if not keywords:
                raise
            raise UserError(f"{label},size={size}: this network is for {fixed} px only; leave size out") from None
        classifier = published.get("classifier") or ()
        stages = [info["module"] for info in getattr(network, "feature_info", ())]
        super().__init__(
            image_size, network, label, removed=(classifier,) if isinstance(classifier, str) else tuple(classifier),
            published=(tuple(published["mean"]), tuple(published["std"])),
            published_size=published["input_size"][-1], stages=stages, size=size or fixed,
            pretrained=pretrained, weights=weights, normalise=normalise,
        )  # fmt: skip

    def published_weights(self) -> tuple[Mapping[str, Tensor], str]:
        """See Collected.published_weights."""
        network = optional("timm", "timm").create_model(**self._build, pretrained=True)
        settings = network.pretrained_cfg
        return network.state_dict(), f"timm:{settings['architecture']}.{settings['tag']}"


def _published(timm: Any, name: str) -> dict[str, Any]:
    """timm's settings of a network's weights. Raises UserError if it has no such network, or no such weights."""
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise not_there("timm", name, timm.list_models(), "timm.list_models()")
    known = timm.models.get_arch_pretrained_cfgs(architecture)
    if tag and name not in known:
        tagged = [each for each in known if "." in each]
        raise not_there("timm", name, tagged, f"timm.list_pretrained('{architecture}*')")
    settings = timm.get_pretrained_cfg(name)
    return settings.to_dict() if settings else {"input_size": (3, 224, 224), "mean": [0.5] * 3, "std": [0.5] * 3}
