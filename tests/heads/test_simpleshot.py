"""SimpleShot against NumPy, and against the transforms and ProtoNet that it consists of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fewshot
from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.data import open_dataset

NORMS = {"un": "none", "l2n": "l2", "cl2n": "center+l2"}


@pytest.mark.parametrize("norm", NORMS)
def test_equals_numpy(norm):
    noise = np.random.default_rng(0)
    base, support, query = (noise.normal(2, 1, shape) for shape in ((30, 8), (15, 8), (12, 8)))
    labels = np.tile(np.arange(5), 3)

    def mapped(z):
        z = z - base.mean(0) if norm == "cl2n" else z
        return z if norm == "un" else z / np.sqrt((z**2).sum(1, keepdims=True))

    means = np.stack([mapped(support)[labels == way].mean(0) for way in range(5)])
    expected = -((mapped(query)[:, None] - means) ** 2).sum(2)

    head = heads.build(f"simpleshot:norm={norm}")
    if head.needs_base:
        head.fit_base(torch.from_numpy(base), torch.zeros(30, dtype=torch.int64))
    logits = head(*(torch.from_numpy(each)[None] for each in (support, labels, query)))
    assert np.abs(logits[0].numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("norm", NORMS)
def test_equals_the_transform_before_protonet(norm):
    """The same tasks are right, one by one."""
    glyphs = open_dataset("glyphs")
    noise = torch.Generator().manual_seed(0)

    def features(split):
        labels = torch.from_numpy(np.asarray(split.labels))
        centres = torch.randn(len(split.classes), 20, generator=noise)
        return centres[labels] + 2 * torch.randn(len(labels), 20, generator=noise) + 1

    z, base = features(glyphs["test"]), features(glyphs["train"])
    given = {"dataset": "glyphs", "shots": 5, "episodes": 300, "base": base}
    (ours,) = fewshot.benchmark(z, head=f"simpleshot:norm={norm}", **given)
    (theirs,) = fewshot.benchmark(z, head="proto:variant=snell", transform=NORMS[norm], **given)
    assert 0.5 < ours.accuracy < 0.95
    assert (ours.accuracies == theirs.accuracies).all()


def test_needs_base_where_it_centres():
    with pytest.raises(UserError, match="head SimpleShot needs features of the base classes"):
        heads.check_trainable(heads.build("simpleshot"))
    heads.check_trainable(heads.build("simpleshot:norm=l2n"))
