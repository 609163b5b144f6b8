"""Results on disk: written so that an interruption at any moment loses at most one epoch.

Each optimizer has ``runs/<name>-<digest>.json`` (configuration and curves) and, while it trains,
``runs/<name>-<digest>.pt`` (model, optimizer, curves). The digest is of the whole configuration, so
that results made with other settings are never taken for these.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from neon.commands.compare.curves import Result
from neon.commands.output import write_json
from neon.commands.references import one_line
from neon.whole_files import write_atomically

FORMAT = 1


class RunStore:
    """The two files of one optimizer.

    `config` is everything that decides the bits of a run: two equal ones mean equal results.
    """

    def __init__(self, directory: Path, name: str, config: Mapping[str, str | int]) -> None:
        self._config = {**config, "format": FORMAT}
        digest = hashlib.sha256(json.dumps(self._config, sort_keys=True).encode()).hexdigest()[:12]
        self._curves = directory / f"{name}-{digest}.json"
        self._checkpoint = directory / f"{name}-{digest}.pt"

    def load_result(self) -> Result | None:
        """The stored result if it is complete and of this configuration."""
        try:
            stored = json.loads(self._curves.read_text(encoding="utf-8"))
            if stored["config"] != self._config:
                return None
            result = Result(**stored["result"])
        except (OSError, ValueError, KeyError, TypeError):  # absent or damaged: train it again
            return None
        return result if result.done else None

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Model, optimizer and curves after the last whole epoch; None where there are none.

        Warns if there is a file that cannot be read, as the training then starts over.
        """
        if not self._checkpoint.exists():
            return None
        try:
            stored = torch.load(self._checkpoint, weights_only=True)
            if stored["config"] != self._config:
                return None
            stored["result"] = Result(**stored["result"])
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            warnings.warn(
                f"cannot resume from {self._checkpoint} ({one_line(error)}); starting over",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return stored

    def save_epoch(self, result: Result, model: dict, optimizer: dict) -> None:
        """Keep an epoch: first what a resume needs, then the curves for people to read."""
        checkpoint = {"config": self._config, "result": asdict(result), "model": model, "optimizer": optimizer}
        write_atomically(self._checkpoint, lambda file: torch.save(checkpoint, file))
        self._write_curves(result)

    def save_final(self, result: Result) -> None:
        """Keep the finished curves and drop the checkpoint, which is of no more use."""
        self._write_curves(result)
        self._checkpoint.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget this run."""
        self._curves.unlink(missing_ok=True)
        self._checkpoint.unlink(missing_ok=True)

    def _write_curves(self, result: Result) -> None:
        write_json(self._curves, {"config": self._config, "result": asdict(result)})
