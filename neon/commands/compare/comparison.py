"""Trains the same network with one optimizer after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

import neon
from neon.commands.compare.curves import Result
from neon.commands.compare.randomness import seeded
from neon.commands.compare.task import Task
from neon.commands.compare.training import Run, Settings, Watcher, attach, digest_of
from neon.commands.errors import SpecError
from neon.commands.optimizer_text import OptimizerSpec
from neon.commands.output import require_writable

FORMAT = 1  # of the files of a run


class Comparison:
    """The same initial weights and the same batches for every optimizer.

    Everything the user gave is checked here, before anything is trained.

    Args:
        task: network, data and loss.
        specs: the optimizers, each once.
        settings: epochs, batch size, seed.
        directory: where results are kept and found again; made if absent.

    Raises:
        TaskError: the task cannot be trained.
        SpecError: an optimizer appears twice or does not fit the network.
        OutputError: the directory cannot be made or written to.
    """

    def __init__(self, task: Task, specs: Sequence[OptimizerSpec], settings: Settings, directory: Path) -> None:
        if not specs:
            raise SpecError("there is no optimizer to compare; give at least one.")
        [(text, count)] = Counter(spec.text for spec in specs).most_common(1)
        if count > 1:
            raise SpecError(f"{text} is given {count} times; give each optimizer once.")
        self.specs = tuple(specs)
        with seeded(settings.seed, "weights"):
            model = task.new_model()
            loss = task.probe(model)
        for spec in specs:
            attach(spec, model)
        # The loss stands for the code of model and loss, which cannot be hashed; six digits,
        # because the last ones depend on the machine.
        digest = digest_of([*task.train, *task.validation, *model.state_dict().values()])
        config = {"task": task.name, "task_sha256": f"{digest}-{loss:.6g}", **asdict(settings)}
        config |= {"neon": neon.__version__, "torch": str(torch.__version__), "format": FORMAT}
        runs = directory / "runs"
        require_writable(runs)
        self._runs = [
            Run(task, spec, settings, model, loss, runs, {"optimizer": spec.text, **config}) for spec in specs
        ]

    def stored(self) -> dict[str, Result]:
        """The results that earlier runs finished, by optimizer."""
        return {run.spec.text: result for run in self._runs if (result := run.stored()) is not None}

    def discard(self) -> None:
        """Forget earlier results of these optimizers with these settings."""
        for run in self._runs:
            run.discard()

    def run(self, watch: Watcher = lambda _result, _position: None) -> list[Result]:
        """Train what is not finished yet; return all results in the order of the optimizers."""
        return [run.train(watch) for run in self._runs]
