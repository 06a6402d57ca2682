"""Matching Networks against attention written out, image by image."""

from __future__ import annotations

import numpy as np
import pytest
from tasks import check_gradient, task

from fewshot import heads
from fewshot.core.errors import UserError


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_equals_the_logarithm_of_attention_summed_by_class(scale):
    support, labels, query = task(features=7)
    logits = heads.build(f"matching:scale={scale}")(support, labels, query).numpy()
    for t in range(3):
        for q, image in enumerate(query[t].numpy()):
            angles = [s @ image / np.linalg.norm(s) / np.linalg.norm(image) for s in support[t].numpy()]
            attention = np.exp(scale * np.array(angles))
            attention /= attention.sum()
            expected = [attention[labels[t] == way].sum() for way in range(5)]
            assert np.allclose(np.exp(logits[t, q]), expected, rtol=1e-10)


def test_sharp_attention_stays_finite():
    """A class may get so little of it that its probability is 0 in float32."""
    support, labels, query = (x.float() if x.is_floating_point() else x for x in task())
    logits = heads.build("matching:scale=1000")(support, labels, query)
    assert logits.isfinite().all() and logits.min() < -200


def test_the_scale_is_the_papers_and_may_learn():
    assert list(heads.build("matching").parameters()) == []
    head = heads.build("matching:scale=5,learn_scale=true")
    assert head.scale.item() == 5
    check_gradient(head, 2, 4)
    with pytest.raises(UserError, match="matching:scale=0.0 is not a positive number"):
        heads.build("matching:scale=0")
