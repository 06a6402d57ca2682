"""Classifiers with fit and predict, such as scikit-learn's, in benchmark: the same tasks, one line for what fails."""

from __future__ import annotations

import copy
import sys
import warnings

import numpy as np
import pytest
import torch
from neighbours import neighbour

import fewshot
from fewshot.core.errors import UserError
from fewshot.data import open_dataset
from fewshot.episodes import Protocol, frozen
from fewshot.evaluation import naming
from fewshot.runs import Run

DummyClassifier = neighbour("sklearn.dummy").DummyClassifier
LinearSVC = neighbour("sklearn.svm").LinearSVC
LogisticRegression = neighbour("sklearn.linear_model").LogisticRegression
KNeighborsClassifier = neighbour("sklearn.neighbors").KNeighborsClassifier
NearestCentroid = neighbour("sklearn.neighbors").NearestCentroid
make_pipeline = neighbour("sklearn.pipeline").make_pipeline
StandardScaler = neighbour("sklearn.preprocessing").StandardScaler

GLYPHS = open_dataset("glyphs")
IMAGES = torch.from_numpy(np.array(GLYPHS["test"].images)).permute(0, 3, 1, 2) / 255
FEATURES = torch.nn.functional.adaptive_avg_pool2d(IMAGES, 8).flatten(1)


def test_the_nearest_centroid_is_proto():
    """In every task, from the same features, transformed alike."""
    options = {"dataset": "glyphs", "shots": 5, "episodes": 100}
    for transform in ("none", "l2"):
        (expected,) = fewshot.benchmark(FEATURES, **options, head="proto", transform=transform)
        (score,) = fewshot.benchmark(FEATURES, **options, head=NearestCentroid(), transform=transform)
        assert score == expected and (score.accuracies == expected.accuracies).all()
        assert score.setting == "inductive"


@pytest.mark.parametrize(
    "classifier",
    [LinearSVC(random_state=0), LogisticRegression(max_iter=1000), KNeighborsClassifier(3),
     make_pipeline(StandardScaler(), KNeighborsClassifier(1))],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_a_classifier_solves_the_frozen_tasks(classifier):
    """By hand: fitted to each task's support, asked for its queries."""
    (score,) = fewshot.benchmark(FEATURES, "glyphs", classifier, shots=5, episodes=20)
    tasks = frozen.standard_tasks(GLYPHS, "test", Protocol(5, 5, 15), 20)
    features, by_hand = FEATURES.double().numpy(), []
    for task in tasks.sampler.draw(0, 20):
        classifier.fit(features[task[:, :5].ravel()], np.repeat(np.arange(5), 5))
        by_hand.append((classifier.predict(features[task[:, 5:].ravel()]) == np.repeat(np.arange(5), 15)).mean())
    assert score.accuracies == pytest.approx(np.array(by_hand), abs=1e-9)
    assert score.task_list == "glyphs-test-5w5s15q" and 0.3 < score.accuracy < 0.9


def test_processes_and_their_number_change_nothing():
    """A classifier that guesses has a random state of its own in each task, unless it comes with one."""
    options = {"dataset": "glyphs", "shots": (1, 5), "episodes": 120}
    guess = DummyClassifier(strategy="uniform")
    here = fewshot.benchmark(FEATURES, **options, head=guess, jobs=1)
    there = fewshot.benchmark(FEATURES, **options, head=guess, jobs=2)
    for one, other in zip(here, there, strict=True):
        assert (one.accuracies == other.accuracies).all()
        assert 0.15 < one.accuracy < 0.25 and one.std > 0.03
    seeded = DummyClassifier(strategy="uniform", random_state=1)
    assert fewshot.benchmark(FEATURES, **options, head=seeded) != here
    assert guess.random_state is None and not hasattr(guess, "classes_")


class Fails:
    """Knows nothing of scikit-learn; counts its own fits, of which each task sees one."""

    def __init__(self, answer):
        self.answer, self.fits = answer, 0

    def fit(self, features, labels):
        self.fits += 1
        assert self.fits == 1 and features.dtype == np.float64
        self.ways = labels.max() + 1

    def predict(self, features):
        return self.answer(len(features), self.ways)


def broken(queries, ways):
    raise RuntimeError("out of\norder")


@pytest.mark.parametrize(
    "head, expected",
    [
        (Fails(broken), "task 0 (5-way 1-shot, test): Fails raised RuntimeError: out of order"),
        (Fails(lambda n, ways: np.zeros(n - 1)), "predicted float64 of shape (74,), not one of 0..4 for each query"),
        (Fails(lambda n, ways: np.full(n, ways)), "predicted int64 of shape (75,), not one of 0..4"),
        (Fails(lambda n, ways: None), "predicted object of shape ()"),
        (KNeighborsClassifier(6), "(n_neighbors=6) raised ValueError: Expected n_neighbors <= n_samples"),
    ],
)
def test_a_classifier_that_fails_is_one_line_naming_the_task(head, expected):
    with pytest.raises(UserError) as refused:
        fewshot.benchmark(FEATURES, "glyphs", head, shots=1, ways=5, episodes=60)
    assert expected in str(refused.value) and "\n" not in str(refused.value)


def test_any_object_will_do_and_a_class_is_none():
    always = Fails(lambda n, ways: np.zeros(n))
    (score,) = fewshot.benchmark(FEATURES, "glyphs", always, shots=1, episodes=60)
    assert score.accuracy == pytest.approx(0.2, abs=1e-12) and always.fits == 0
    with pytest.raises(UserError, match="or a classifier with fit and predict"):
        fewshot.benchmark(FEATURES, "glyphs", KNeighborsClassifier, shots=1, episodes=60)


def test_its_warnings_are_told_once_at_the_callers_line():
    said = r"LogisticRegression\(max_iter=1\) warned in 60 of 60 tasks, first: ConvergenceWarning"
    with pytest.warns(UserWarning, match=said) as told:
        fewshot.benchmark(FEATURES, "glyphs", LogisticRegression(max_iter=1), shots=1, episodes=60)
    assert len(told) == 1 and told[0].filename == __file__


def test_a_bar_for_people_and_nothing_in_a_pipe(capsys, monkeypatch):
    options = {"dataset": "glyphs", "head": KNeighborsClassifier(1), "shots": 1, "episodes": 60}
    fewshot.benchmark(FEATURES, **options)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with warnings.catch_warnings():
        fewshot.benchmark(FEATURES, **options)
    assert "tasks" in capsys.readouterr().err


def test_the_order_of_queries_tells_a_classifier_nothing():
    """One that assumes that they come class by class does no better than chance."""
    by_place = Fails(lambda n, ways: np.arange(ways).repeat(n // ways))
    (score,) = fewshot.benchmark(FEATURES, "glyphs", by_place, shots=1, episodes=60)
    assert abs(score.accuracy - 0.2) < 0.03 and score.std > 0


def test_random_states_within_a_pipeline_are_set_too():
    guess = make_pipeline(StandardScaler(), DummyClassifier(strategy="uniform"))
    options = {"dataset": "glyphs", "head": guess, "shots": 1, "episodes": 20, "jobs": 1}
    (once,), (again,) = (fewshot.benchmark(FEATURES, **options) for _ in range(2))
    assert (once.accuracies == again.accuracies).all() and once.std > 0


def test_a_task_that_fails_later_is_named_by_its_number():
    """The 57th, beyond the first 50 that are solved together."""
    solved = []

    def answer(n, ways):
        solved.append(n)
        if len(solved) == 57:
            raise RuntimeError("enough")
        return np.zeros(n)

    with pytest.raises(UserError, match=r"task 56 \(5-way 1-shot, test\): Fails raised RuntimeError: enough"):
        fewshot.benchmark(FEATURES, "glyphs", Fails(answer), shots=1, episodes=60, jobs=1)


class Threshold:
    """A class of one's own: what it holds is no option that scikit-learn would print."""

    def __init__(self, value):
        self.value = value

    def fit(self, x, y):
        self.ways = len(set(y))

    def predict(self, x):
        return np.zeros(len(x), int)


def test_different_classifiers_have_different_names():
    """Runs of one name would count as one training. Long options are cut, and a digest tells them apart."""
    one, other = (naming.name(make_pipeline(StandardScaler(), LogisticRegression(C=C))) for C in (0.1, 10.0))
    assert one != other and max(len(one), len(other)) <= 100
    assert naming.name(LinearSVC(C=0.5)) == "LinearSVC(C=0.5)"
    weights = [list(range(100)), [*range(50), 0, *range(51, 100)]]  # of so many, scikit-learn prints only the first
    one, other = (naming.name(KNeighborsClassifier(metric_params={"w": each})) for each in weights)
    assert one != other


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 2), ("a", "b"), ([1, {"a"}], [1, {"b"}]), (torch.zeros(2), torch.ones(2)), (np.zeros(2), np.zeros(3)),
     (np.mean, np.median), (LinearSVC(C=1), LinearSVC(C=2)), (torch.nn.ReLU(), torch.nn.GELU())],
    ids=lambda each: type(each).__name__,
)  # fmt: skip
def test_objects_are_named_after_what_they_hold(one, other):
    """By value, without addresses: the same in every process."""
    assert naming.name(Threshold(one)) == naming.name(Threshold(copy.deepcopy(one))) != naming.name(Threshold(other))


def test_an_object_that_holds_itself_has_a_name():
    itself = Threshold(1)
    itself.value = itself
    assert naming.name(itself).startswith("Threshold-")


def test_the_code_of_a_class_of_ones_own_is_in_the_row(tmp_path):
    nowhere = type("Threshold", (Threshold,), {"__module__": "__main__"})  # as in a notebook
    classifiers = {"own": Threshold(1), "nowhere": nowhere(1), "theirs": KNeighborsClassifier(1)}
    for name, classifier in classifiers.items():
        fewshot.benchmark(FEATURES, "glyphs", classifier, shots=1, episodes=20, out=tmp_path / name)
    rows = {name: Run.open(tmp_path / name).rows[0] for name in classifiers}
    assert rows["own"]["head"].startswith("Threshold-") and len(rows["own"]["solver_code"]) > 0
    assert "solver_code" not in rows["theirs"] | rows["nowhere"]
