"""mini-ImageNet at half the side, 42 px: a quarter of the work, with the same classes and the same tasks.

For studies that need many runs. Its accuracies are not mini-ImageNet results: it is a separate data set, ranked by
itself. `prepare` takes copies of mini-ImageNet and shrinks their images.
"""

from __future__ import annotations

import dataclasses

from fewshot.data.specs import mini_imagenet

SPEC = dataclasses.replace(mini_imagenet.SPEC, name="mini-imagenet-42", image_size=42)
