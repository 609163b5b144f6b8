"""What one optimizer achieved, epoch by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median

RUNNING = "running"
FINISHED = "finished"


@dataclass
class Result:
    """The curves of one optimizer.

    Attributes:
        optimizer: its canonical text.
        status: "running", "finished" or "diverged at epoch k" (k counts from 1).
        train_loss: per epoch, the mean over its batches, taken while the weights move.
        validation_loss: per epoch, after its last batch.
        accuracy: per epoch, on the validation samples, 0 to 1.
        step_us: per epoch, the median time of an optimizer step in microseconds.
        weights_sha256: digest of the final weights; equal digests mean equal bits.
    """

    optimizer: str
    status: str = RUNNING
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    step_us: list[float] = field(default_factory=list)
    weights_sha256: str = ""

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return len(self.accuracy)

    @property
    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self.status != RUNNING

    @property
    def diverged(self) -> bool:
        """Whether a loss or a parameter stopped being finite, or the validation loss exploded.

        Exploded: more than 1000 times the loss of the initial weights (or than 1000).
        """
        return self.status.startswith("diverged")

    @property
    def best_accuracy(self) -> float | None:
        """The highest validation accuracy of any epoch; None before the first."""
        return max(self.accuracy, default=None)

    @property
    def median_step_us(self) -> float | None:
        """The median over epochs of the median step, in microseconds."""
        return median(self.step_us) if self.step_us else None

    def epochs_to(self, target: float) -> int | None:
        """The first epoch (from 1) whose validation accuracy is at least `target`.

        >>> Result("Adam()", accuracy=[0.5, 0.96, 0.94]).epochs_to(0.95)
        2
        """
        return next((i + 1 for i, value in enumerate(self.accuracy) if value >= target), None)


def percent(share: float) -> str:
    """A share of one in per cent, with one digit.

    >>> percent(0.9876)
    '98.8 %'
    """
    return f"{100 * share:.1f} %"


def decimal(value: float) -> str:
    """A loss with four digits after the point, or in powers of ten where it is large.

    >>> decimal(0.03571), decimal(2583351.25)
    ('0.0357', '2.6e+06')
    """
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.1e}"
