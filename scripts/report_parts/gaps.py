"""How far networks overfit: how much better they do on what they were trained on than on validation images."""

from __future__ import annotations

from report_parts.effects import Study, tested


def gaps(study: Study, reg: str, test: str) -> list[float]:
    """Accuracy on the training split less that on the validation split, of each seed that has both; fractions of 1.

    `python -m fewshot.evaluate RUN --split train`, and `--split val`, put the two into a run's folder.
    """
    found = []
    for _, run in sorted(study.runs.get(reg, {}).items()):
        train, val = tested(run, "train"), tested(run, "val")
        if test in train and test in val:
            found.append(train[test] - val[test])
    return found
