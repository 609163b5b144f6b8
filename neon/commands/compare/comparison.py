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
from neon.commands.compare.run_files import RunStore
from neon.commands.compare.task import Task
from neon.commands.compare.training import Runner, Settings, Watcher, attach, digest_of
from neon.commands.errors import SpecError
from neon.commands.optimizer_text import OptimizerSpec
from neon.commands.output import require_writable


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
        _require_distinct(specs)
        self.specs, self._settings, self._task = tuple(specs), settings, task
        with seeded(settings.seed, "weights"):
            self._model = task.new_model()
            self._loss = task.probe(self._model)
        for spec in specs:
            attach(spec, self._model)
        # The loss stands for the code of model and loss, which cannot be hashed; six digits,
        # because the last ones depend on the machine.
        digest = digest_of([*task.train, *task.validation, *self._model.state_dict().values()])
        config = {"task": task.name, "task_sha256": f"{digest}-{self._loss:.6g}", **asdict(settings)}
        config |= {"neon": neon.__version__, "torch": str(torch.__version__)}
        runs = directory / "runs"
        require_writable(runs)
        self._stores = {spec.text: RunStore(runs, spec.name, {"optimizer": spec.text, **config}) for spec in specs}

    def stored(self) -> dict[str, Result]:
        """The results that earlier runs finished, by optimizer."""
        found = {text: store.load_result() for text, store in self._stores.items()}
        return {text: result for text, result in found.items() if result is not None}

    def discard(self) -> None:
        """Forget earlier results of these optimizers with these settings."""
        for store in self._stores.values():
            store.discard()

    def run(self, watch: Watcher = lambda _result, _position: None) -> list[Result]:
        """Train what is not finished yet; return all results in the order of the optimizers."""
        results = self.stored()
        for spec in self.specs:
            if spec.text in results:
                watch(results[spec.text], results[spec.text].epochs)
                continue
            runner = Runner(self._task, self._model, self._loss, spec, self._settings)
            results[spec.text] = runner.run(self._stores[spec.text], watch)
        return [results[spec.text] for spec in self.specs]


def _require_distinct(specs: Sequence[OptimizerSpec]) -> None:
    if not specs:
        raise SpecError("there is no optimizer to compare; give at least one.")
    text, count = Counter(spec.text for spec in specs).most_common(1)[0]
    if count > 1:
        raise SpecError(f"{text} is given {count} times; give each optimizer once.")
