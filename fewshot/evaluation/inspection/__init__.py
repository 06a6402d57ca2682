"""What a network makes of a few images: masks at its sites, class activation maps, activations.

Everything runs in evaluation mode: what a regularizer receives here has not been regularized before.
"""

from __future__ import annotations

from fewshot.evaluation.inspection.activations import EDGES, SMALLEST, class_activation_maps, heat, magnitudes
from fewshot.evaluation.inspection.masks import (
    Masked,
    choose,
    expand,
    masks,
    one_view,
    replace_regularizers,
    taken_away,
)
from fewshot.evaluation.inspection.scenes import SHOTS, Scene, class_weights, guide, outputs, scene

__all__ = [
    "EDGES", "SHOTS", "SMALLEST", "Masked", "Scene", "choose", "class_activation_maps", "class_weights", "expand",
    "guide", "heat", "magnitudes", "masks", "one_view", "outputs", "replace_regularizers", "scene", "taken_away",
]  # fmt: skip
