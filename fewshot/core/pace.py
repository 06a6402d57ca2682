"""How long a training is, in epochs and in steps. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """An epoch is a number of items (episodes, or images), not of steps: a step that ends one may begin the next."""

    epochs: int
    per_epoch: int
    """Items in an epoch."""
    per_step: int
    """Items in an optimizer step."""
    val_every: int = 1
    """Epochs between validations."""

    @property
    def steps(self) -> int:
        """Optimizer steps in all: the items of all epochs, rounded up to whole steps."""
        return -(-self.epochs * self.per_epoch // self.per_step)

    def epochs_done(self, step: int) -> int:
        """Whole epochs completed after `step` steps."""
        return min(self.epochs, step * self.per_step // self.per_epoch)

    def first_step(self, epoch: int) -> int:
        """The step (from 0) before which `epoch` whole epochs have passed."""
        return -(-epoch * self.per_epoch // self.per_step)

    def validates_after(self, step: int) -> bool:
        """Whether the `step`-th step (from 1) ends training, or an epoch that is validated."""
        before, after = (self.epochs_done(n) // self.val_every for n in (step - 1, step))
        return after > before or step == self.steps
