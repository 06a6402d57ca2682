"""ImageNet (ILSVRC 2012; Russakovsky et al., IJCV 2015), 224 px: for classification, each split has all 1,000 classes.

The images stay where they are: `prepare` writes lists of them, and training decodes them. The last 50 training images
of each class, in the order of their names, are for validation. The 50,000 images that ImageNet calls val are for
testing, as is usual in the field.
"""

from __future__ import annotations

from fewshot.data.spec import DatasetSpec

SPEC = DatasetSpec(
    "imagenet",
    shared_classes=True,
    images_per_class={"val": 50, "test": 50},
    images={"train": 1_231_167, "val": 50_000, "test": 50_000},
    importers=("imagenet",),
    image_size=224,
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    in_files=True,
    licence="ImageNet's: non-commercial research and education only",
)
