"""LaplacianShot against its published code's mathematics, written out with plain loops in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fewshot import heads
from fewshot.core.errors import UserError
from fewshot.heads import laplacian
from fewshot.heads.laplacian import nearest


def one_task(seed: int, shots: int = 5, queries: int = 9, features: int = 12, ways: int = 4, spread: float = 1.0):
    """support (N, D), labels (N,), query (Q, D), float64; classes in random order, queries unbalanced."""
    draw = np.random.default_rng(seed)
    centres = 2 + draw.normal(size=(ways, features))
    labels, truth = draw.permutation(np.repeat(np.arange(ways), shots)), draw.integers(0, ways, ways * queries)
    noise = spread * draw.normal(size=(len(labels) + len(truth), features))
    return centres[labels] + noise[: len(labels)], labels, centres[truth] + noise[len(labels) :]


def solved(spec: str, support, labels, query, dtype=torch.float64) -> np.ndarray:
    """The head's logits (Q, W)."""
    support, query = (torch.from_numpy(part).to(dtype)[None] for part in (support, query))
    return heads.build(spec).eval()(support, torch.from_numpy(labels)[None], query)[0].double().numpy()


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max())
    return powers / powers.sum()


def prepared(support, labels, query, rectify: bool):
    """Prototypes (W, D) and queries (Q, D) as the published code makes them."""
    support, query = (np.stack([x / np.linalg.norm(x) for x in part]) for part in (support, query))
    means = [support[labels == c].mean(0) for c in range(labels.max() + 1)]
    if not rectify:
        return means, query
    query = query + (support.mean(0) - query.mean(0))
    weighted: list[list[np.ndarray]] = [[] for _ in means]
    for x in (*support, *query):
        cosines = np.array([x @ m / np.linalg.norm(x) / np.linalg.norm(m) for m in means])
        best = int(cosines.argmax())
        weighted[best].append(softmax(10 * cosines)[best] * x)
    return [np.mean(own, axis=0) if own else mean for own, mean in zip(weighted, means, strict=True)], query


def affinity(query, neighbours: int) -> np.ndarray:
    """(Q, Q): each query's nearest queries, without itself, which is the first of them."""
    near = np.zeros((len(query), len(query)))
    for i, x in enumerate(query):
        near[i, np.argsort([((x - other) ** 2).sum() for other in query], kind="stable")[:neighbours]] = 1
        near[i, i] = 0
    return near


def bound_updates(unary, near, lam: float, steps: int):
    """Exponents and assignments (Q, W) before the first update and after each."""
    exponents = -unary
    history = [(exponents, np.stack([softmax(row) for row in exponents]))]
    for _ in range(steps):
        before, exponents = history[-1][1], -unary
        for q in range(len(unary)):
            exponents[q] = exponents[q] + lam * sum(near[q, p] * before[p] for p in range(len(unary)))
        history.append((exponents, np.stack([softmax(row) for row in exponents])))
    return history


def distances(means, query) -> np.ndarray:
    return np.array([[((x - m) ** 2).sum() for m in means] for x in query])


@pytest.mark.parametrize("rectify", [True, False])
@pytest.mark.parametrize("lam, neighbours, steps", [(0.7, 3, 20), (1.5, 6, 3), (0.7, 3, 0), (0.7, 1, 20)])
def test_equals_the_published_mathematics(lam, neighbours, steps, rectify):
    spec = f"laplacian:lam={lam},neighbours={neighbours},steps={steps},rectify={str(rectify).lower()}"
    for seed, shots in ((0, 1), (1, 5)):
        task = one_task(seed, shots)
        means, query = prepared(*task, rectify)
        expected = bound_updates(distances(means, query), affinity(query, neighbours), lam, steps)[-1][0]
        assert np.abs(solved(spec, *task) - expected).max() < 1e-9
        assert np.abs(solved(spec, *task, dtype=torch.float32) - expected).max() < 1e-4


def objective(assigned, unary, near, lam: float) -> float:
    """What the bound updates lower (eq. 5)."""
    agreement = sum(near[q, p] * assigned[q] @ assigned[p] for q, p in zip(*near.nonzero(), strict=True))
    return float((assigned * np.log(assigned)).sum() + (assigned * unary).sum() - lam / 2 * agreement)


@pytest.mark.parametrize("lam", [0.3, 0.7, 1.5])
def test_each_update_lowers_the_objective(lam):
    """The paper's theorem, of symmetric affinities without negative eigenvalues: here of a Gaussian kernel."""
    for seed in range(5):
        means, query = prepared(*one_task(seed, spread=1.5), rectify=True)
        unary = distances(means, query)
        near = np.exp(-2 * np.array([[((x - other) ** 2).sum() for other in query] for x in query]))
        assert np.linalg.eigvalsh(near).min() > -1e-9
        given = torch.from_numpy(unary.T)[None], torch.from_numpy(lam * near)[None]
        logits = [laplacian.bound_updates(*given, steps) for steps in range(12)]
        values = [objective(each[0].softmax(0).T.numpy(), unary, near, lam) for each in logits]
        assert np.diff(values).max() < 1e-12 and values[1] < values[0] - 1e-3


@pytest.mark.parametrize("lam", [0.3, 0.7, 1.5])
def test_the_published_neighbours_lower_it_by_and_large(lam):
    """They are not symmetric: the theorem does not cover them, and late updates raise the objective a little."""
    for seed in range(5):
        task = one_task(seed, spread=1.5)
        means, query = prepared(*task, rectify=True)
        unary, near = distances(means, query), affinity(query, 3)
        logits = [solved(f"laplacian:lam={lam},steps={steps}", *task) for steps in (0, 1, 2, 5, 20)]
        values = [objective(np.stack([softmax(row) for row in each]), unary, near, lam) for each in logits]
        fall = values[0] - values[-1]
        assert fall > 1e-3 and values[1] < values[0] and np.diff(values).max() < 0.1 * fall


def test_neighbours_are_the_nearest_and_ties_are_neighbours_all():
    x = torch.tensor([[0.0], [1.0], [3.0], [3.0], [3.0]])[None]
    assert nearest(x @ x.mT, 3)[0].tolist() == [
        [0, 1, 1, 1, 1], [1, 0, 1, 1, 1], [0, 0, 0, 1, 1], [0, 0, 1, 0, 1], [0, 0, 1, 1, 0],
    ]  # fmt: skip
    assert nearest(x @ x.mT, 1).sum() == 0
    assert (nearest(x @ x.mT, 99)[0] == 1 - torch.eye(5)).all()  # more than there are: all


def test_it_helps_where_queries_form_clusters():
    right = {"laplacian": 0, "laplacian:lam=0,rectify=false": 0}
    for seed in range(60):
        draw = np.random.default_rng(seed)
        centres = draw.normal(size=(4, 12))
        truth = np.repeat(np.arange(4), 10)
        support = centres + 1.2 * draw.normal(size=(4, 12))
        query = centres[truth] + 0.8 * draw.normal(size=(40, 12))
        for spec in right:
            right[spec] += (solved(spec, support, np.arange(4), query).argmax(1) == truth).mean() / 60
    together, alone = right.values()
    assert together > alone + 0.03


@pytest.mark.parametrize("options", ["lam=-1", "lam=nan", "lam=inf", "neighbours=0", "steps=-1"])
def test_nonsense_is_refused(options):
    with pytest.raises(UserError, match=f"laplacian:{options.partition('=')[0]}="):
        heads.build(f"laplacian:{options}")
