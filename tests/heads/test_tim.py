"""TIM against the mathematics of its published code (TIM-ADM), one image and class at a time, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot import heads
from fewshot.core.errors import UserError

TEMPERATURE, CROSS_ENTROPY, MARGINAL, CONDITIONAL = 15.0, 0.1, 1.0, 0.1


def one_task(seed: int, shots: int = 5, queries: int = 9, features: int = 12, ways: int = 4, spread: float = 1.0):
    """support (N, D), labels (N,), query (Q, D), truth (Q,), float64; classes in random order, queries unbalanced."""
    draw = np.random.default_rng(seed)
    centres = 1 + draw.normal(size=(ways, features))
    labels, truth = draw.permutation(np.repeat(np.arange(ways), shots)), draw.integers(0, ways, ways * queries)
    noise = spread * draw.normal(size=(len(labels) + len(truth), features))
    return centres[labels] + noise[: len(labels)], labels, centres[truth] + noise[len(labels) :], truth


def solved(spec: str, support, labels, query, dtype=torch.float64) -> np.ndarray:
    """The head's logits (Q, W)."""
    support, query = (torch.from_numpy(part).to(dtype)[None] for part in (support, query))
    return heads.build(spec).eval()(support, torch.from_numpy(labels)[None], query)[0].double().numpy()


def unit(images):
    return np.stack([x / np.linalg.norm(x) for x in images])


def probabilities(x, classifier) -> np.ndarray:
    """(W,): softmax of -temperature / 2 * ||x - w||^2."""
    powers = np.exp([-TEMPERATURE / 2 * ((x - w) ** 2).sum() for w in classifier])
    return powers / powers.sum()


def alternate(support, labels, query, steps: int) -> np.ndarray:
    """The classifier (W, D) after `steps` of TIM-ADM."""
    classes = range(labels.max() + 1)
    classifier = np.stack([support[labels == c].mean(0) for c in classes])
    k, r = CROSS_ENTROPY / (1 + CONDITIONAL), len(support) / len(query)
    for _ in range(steps):
        of_support = np.stack([probabilities(x, classifier) for x in support])
        of_query = np.stack([probabilities(x, classifier) for x in query])
        power = of_query ** (1 + CONDITIONAL)
        q = np.array([[row[c] / power[:, c].sum() ** (MARGINAL / (MARGINAL + 1)) for c in classes] for row in power])
        q = np.stack([row / row.sum() for row in q])
        after = np.empty_like(classifier)
        for c in classes:
            upper, lower = 0, 0
            for x, own, p in zip(support, labels, of_support, strict=True):
                upper = upper + k * ((own == c) * x + p[c] * (classifier[c] - x))
                lower += k * (own == c)
            for x, share, p in zip(query, q, of_query, strict=True):
                upper = upper + r * (share[c] * x + p[c] * (classifier[c] - x))
                lower += r * share[c]
            after[c] = upper / lower
        classifier = after
    return classifier


def loss(support, labels, query, classifier) -> float:
    """Cross-entropy, less the mutual information of queries and labels, weighted (eq. 3)."""
    right = [np.log(probabilities(x, classifier)[own]) for x, own in zip(support, labels, strict=True)]
    p = np.stack([probabilities(x, classifier) for x in query])
    marginal, conditional = -(p.mean(0) * np.log(p.mean(0))).sum(), -(p * np.log(p)).sum(1).mean()
    return -CROSS_ENTROPY * np.mean(right) - MARGINAL * marginal + CONDITIONAL * conditional


@pytest.mark.parametrize("steps", [0, 1, 40])
def test_equals_the_published_mathematics(steps):
    for seed, shots in ((0, 1), (1, 5)):
        support, labels, query, _ = one_task(seed, shots)
        classifier = alternate(unit(support), labels, unit(query), steps)
        expected = np.stack([probabilities(x, classifier) for x in unit(query)])
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-4)):
            logits = torch.from_numpy(solved(f"tim:steps={steps}", support, labels, query, dtype))
            assert np.abs(logits.softmax(1).numpy() - expected).max() < tolerance


def test_its_loss_falls():
    for seed in range(4):
        support, labels, query, _ = one_task(seed, shots=1 + 4 * (seed % 2), spread=1.5)
        task = unit(support), labels, unit(query)
        values = [loss(*task, alternate(*task, steps)) for steps in (0, 1, 2, 4, 8, 16, 32)]
        assert np.diff(values).max() < -1e-4 and values[-1] < values[0] - 0.03


def test_it_helps_on_balanced_tasks_and_harms_where_one_class_has_all_queries():
    """What Veilleux et al. (NeurIPS 2021) show: the marginal term favours equally many queries of each class."""
    right = {}
    for name, truth in (("balanced", np.repeat(np.arange(4), 10)), ("one class", np.repeat([0, 1], [37, 3]))):
        for spec in ("tim", "tim:steps=0", "tim:marginal=0"):
            right[name, spec] = 0.0
            for seed in range(12):
                draw = np.random.default_rng(seed)
                centres = draw.normal(size=(4, 12))
                support = centres + 0.9 * draw.normal(size=(4, 12))
                query = centres[truth] + 0.9 * draw.normal(size=(40, 12))
                right[name, spec] += (solved(spec, support, np.arange(4), query).argmax(1) == truth).mean() / 12
    assert right["balanced", "tim"] > right["balanced", "tim:steps=0"] + 0.05
    assert right["one class", "tim"] < right["one class", "tim:steps=0"] - 0.05
    assert right["one class", "tim:marginal=0"] > right["one class", "tim"] + 0.05


@pytest.mark.parametrize(
    "options", ["steps=-1", "temperature=0", "temperature=nan", "cross_entropy=-1", "marginal=inf", "conditional=nan"]
)
def test_nonsense_is_refused(options):
    with pytest.raises(UserError, match=f"tim:{options.partition('=')[0]}="):
        heads.build(f"tim:{options}")


def test_each_weight_is_used_where_it_belongs(monkeypatch):
    """Two of the published weights are equal, and one is 1: here each has a value of its own."""
    own = {"TEMPERATURE": 6.0, "CROSS_ENTROPY": 0.3, "MARGINAL": 0.5, "CONDITIONAL": 0.7}
    for name, value in own.items():
        monkeypatch.setitem(globals(), name, value)
    support, labels, query, _ = one_task(0, shots=2)
    for steps in (1, 6):
        classifier = alternate(unit(support), labels, unit(query), steps)
        expected = np.stack([probabilities(x, classifier) for x in unit(query)])
        spec = f"tim:steps={steps},temperature=6,cross_entropy=0.3,marginal=0.5,conditional=0.7"
        logits = torch.from_numpy(solved(spec, support, labels, query))
        assert np.abs(logits.softmax(1).numpy() - expected).max() < 1e-9
