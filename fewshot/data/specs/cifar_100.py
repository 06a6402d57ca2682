"""CIFAR-100 (Krizhevsky, 2009), 32 px: for classification, so each split has all hundred classes.

Of a class's 500 training images, the last 50 in the order of the file are for validation. Its 100 test images are for
testing. `cifar-fs` and `fc100` are the few-shot sets of the same images.
"""

from __future__ import annotations

from fewshot.data.names import SPLITS
from fewshot.data.spec import DatasetSpec

CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl", "boy",
    "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair", "chimpanzee", "clock",
    "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest",
    "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion", "lizard",
    "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom", "oak_tree", "orange", "orchid",
    "otter", "palm_tree", "pear", "pickup_truck", "pine_tree", "plain", "plate", "poppy", "porcupine", "possum",
    "rabbit", "raccoon", "ray", "road", "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper",
    "snail", "snake", "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf",
    "woman", "worm",
)  # fmt: skip

SPEC = DatasetSpec(
    "cifar-100",
    splits=dict.fromkeys(SPLITS, CLASSES),
    shared_classes=True,
    images_per_class={"train": 450, "val": 50, "test": 100},
    importers=("cifar",),
    image_size=32,
    licence="none is stated; its author asks to cite Krizhevsky (2009)",
)
