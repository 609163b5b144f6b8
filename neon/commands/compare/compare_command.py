"""What ``neon compare`` does, from its options to the files it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from neon.commands.compare.comparison import Comparison
from neon.commands.compare.curve_figure import save_curves
from neon.commands.compare.curves import Result
from neon.commands.compare.default_optimizers import DEFAULT_OPTIMIZERS
from neon.commands.compare.digits import digits
from neon.commands.compare.live_progress import ProgressView
from neon.commands.compare.ranking import result_table, save_results
from neon.commands.compare.task import load_task
from neon.commands.compare.training import Settings
from neon.commands.errors import SettingsError
from neon.commands.figures import require_matplotlib
from neon.commands.optimizer_text import parse_optimizer, short_labels
from neon.commands.output import print_written


class InterruptedRunError(KeyboardInterrupt):
    """The user stopped the comparison; the message says what is kept."""


def run_command(
    optimizers: Sequence[str],
    task_name: str | None,
    settings: Settings,
    target: float,
    output: Path,
    console: Console,
    *,
    fresh: bool,
) -> list[Result]:
    """Check everything, train with each optimizer, save results and figure, print the table.

    Args:
        optimizers: as `parse_optimizer` reads them; empty means `DEFAULT_OPTIMIZERS`.
        task_name: ``module:function``; None means the digits.
        settings: epochs, batch size, seed.
        target: the validation accuracy to reach, above 0 and at most 1.
        output: the directory for results and figure.
        console: where the command tells what it does.
        fresh: whether to train again what is already there.

    Raises:
        UsageError: something in the request cannot be used; nothing was trained.
        InterruptedRunError: Ctrl-C during the training; every whole epoch is kept.
    """
    if not 0.0 < target <= 1.0:
        raise SettingsError(f"target must be an accuracy above 0 and at most 1, such as 0.95; received {target!r}.")
    require_matplotlib("neon compare")
    specs = [parse_optimizer(text) for text in optimizers or DEFAULT_OPTIMIZERS]
    task = digits() if task_name is None else load_task(task_name)
    comparison = Comparison(task, specs, settings, output)
    labels = short_labels(specs)
    if fresh:
        comparison.discard()
    elif kept := len(comparison.stored()):
        console.print(
            f"{kept} of {len(specs)} optimizers are finished in {output} already (--fresh trains them again).",
            highlight=False,
        )
    view = ProgressView(console, [spec.text for spec in specs], labels, settings.epochs)
    try:
        with view.showing():
            results = comparison.run(view)
    except KeyboardInterrupt:
        again = "the same command without --fresh" if fresh else "the same command"
        raise InterruptedRunError(f"Interrupted: {view.standing()}. Run {again} to go on.") from None
    title = f"{task.name}: {settings.epochs} epochs, batch size {settings.batch_size}, seed {settings.seed}"
    written = [output / "results.json"]
    save_results(written[0], results, target, title)
    written += save_curves(output, results, labels, target, title)
    console.print(result_table(results, target, title))
    print_written(console, written)
    return results
