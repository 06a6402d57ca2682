"""Test a classifier on every image of a split: top-1 and top-5 accuracy, error, and what it made of each image.

Shapes: n images, K classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.core.compute import Compute
from fewshot.data import Dataset, Split
from fewshot.evaluation import folding, record_files
from fewshot.evaluation.embed import embed_split
from fewshot.evaluation.overlap import seen, trained_splits
from fewshot.evaluation.score import evaluated_by
from fewshot.evaluation.verdicts import TOP, Verdicts, guessed, keep
from fewshot.model import Model
from fewshot.runs import CLASSIFICATION, Run


@torch.no_grad()
def classify(model: Model, split: Split, compute: Compute, fold: bool = False) -> Verdicts:
    """What the model's own classifier makes of every image of a split whose classes are those it was trained on.

    `fold`: by a copy with its batch norms folded, which is faster and equal up to rounding; a validation that selects
    weights does not fold. Raises UserError if an output is not finite.
    """
    model.eval()
    network, at_once = folding.in_use(model, compute, fold)
    classifier = model.classifier
    assert classifier is not None
    logits = embed_split(lambda images: classifier(network(images)), split, compute, at_once)  # (n, K)
    return judged(logits, split.labels)


def judged(logits: Tensor, truth: np.ndarray) -> Verdicts:
    """From logits (n, K) and class numbers (n,)."""
    labels = torch.from_numpy(truth).to(logits.device)[:, None]
    own = logits.gather(1, labels)
    classes = torch.arange(logits.shape[1], device=logits.device)
    larger = (logits > own) | ((logits == own) & (classes < labels))
    peak = logits == logits.amax(1, keepdim=True)
    predicted = torch.where(peak, classes, len(classes)).amin(1)  # the first among equals
    return Verdicts(truth, predicted.cpu().numpy(), (larger.sum(1) < TOP).cpu().numpy())


def classify_run(
    run: Run,
    model: Model,
    dataset: Dataset,
    split: str,
    compute: Compute,
    replace: bool = False,
    training: Dataset | None = None,
    tested: bool = False,
) -> dict[str, Any]:
    """Classify a split's images; keep the row and the record in the run folder, whose lock is held. Returns the row.

    `dataset` has images of the model's size, and the classes that it was trained on. `replace`: replace earlier results
    of this split, on any copy of the pixels. `training`: the data set that the run was trained on, if it is at
    hand: the row says how many images were seen in it. `tested`: whether this is the test that the configuration asks
    for.
    """
    images = dataset[split]
    assert model.classifier is not None
    found = classify(model, images, compute, fold=True)
    classes = len(images.classes)
    row = {
        "dataset": dataset.name, "split": split, "classes": classes, "classifier": model.classifier.kind,
        **found.figures(classes), "membership": images.membership, **dataset.fingerprints,
    }  # fmt: skip
    row |= {"at_chance": True} if guessed(row) else {}
    if training is not None and (known := seen(training, dataset, split, trained_splits(run)).get("images")):
        row["seen_in_training"] = {"images": known}
    row["evaluated_by"] = evaluated_by(compute)
    row |= keep(run, f"{dataset.name}-{split}", found)
    before = run.classification
    run.write_result([row], replace, tested, CLASSIFICATION)
    record_files.forget(run, before)
    return row
