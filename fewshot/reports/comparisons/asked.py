"""Which of a run's results are compared."""

from __future__ import annotations

from dataclasses import dataclass

from fewshot.config import TrainConfig
from fewshot.core.errors import UserError
from fewshot.data.names import SPLITS

NO_TEST = {
    "val": "validation on these images chose the weights: this is no test",
    "train": "the networks were trained on these images: this is no test",
}
"""Why the other splits of a run's own data set are no test."""


@dataclass(frozen=True)
class Asked:
    """Results on one split; those of tasks, by this head and transform as written (None: by each run's own)."""

    split: str = "test"
    head: str | None = None
    transform: str | None = None

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise UserError(f"split={self.split!r}: give one of {', '.join(SPLITS)}")

    @property
    def names_solver(self) -> bool:
        """Whether a head or a transform is asked for."""
        return self.head is not None or self.transform is not None

    def solver(self, config: TrainConfig) -> tuple[str, str]:
        """Head and transform of those results of a run that are compared."""
        return self.head or config.head, self.transform or config.transform

    @property
    def flags(self) -> list[str]:
        """The flags with which `evaluate` makes such results."""
        given = {"--head": self.head, "--transform": self.transform, "--split": self.split}
        return [word for flag, value in given.items() if value not in (None, "test") for word in (flag, str(value))]


TEST = Asked()
