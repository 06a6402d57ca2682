"""A small data set for classification: letters of glyphs, with the same classes in every split, as a store on disk."""

from __future__ import annotations

from pathlib import Path

from fewshot.data import dataset_json, open_dataset, store

CLASSES, COUNTS = 8, {"train": 12, "val": 6, "test": 6}
FLAGS = [
    "--dataset", "letters", "--regime", "supervised:batch=16", "--epochs", "2", "--lr", "0.05", "--crop-padding", "2",
    "--jitter", "0", "--no-mirror", "--threads", "1", "--device", "cpu", "--precision", "fp32",
]  # fmt: skip


def make(root: Path) -> Path:
    """Write the store `letters` under `root`; returns this data root."""
    folder = root / "letters"
    folder.mkdir(parents=True)
    glyphs = open_dataset("glyphs")["train"]
    names, first, entries = list(glyphs.classes[:CLASSES]), 0, {}
    for split, count in COUNTS.items():
        blocks = [glyphs.images[start + first : start + first + count] for start in glyphs.starts[:CLASSES]]
        shape, first = (CLASSES * count, *glyphs.images.shape[1:]), first + count
        digest = store.write_array(folder / f"{split}.npy", shape, blocks)
        entries[split] = {"classes": names, "counts": [count] * CLASSES, "shape": list(shape), "sha256": digest}
    dataset_json.write(folder, "letters", entries, "glyphs", [], {})
    return root
