"""The command ``neon``. Each subcommand imports what it needs when it runs: help is quick."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

USAGE = 2
INTERRUPTED = 130

app = typer.Typer(
    name="neon",
    help="Optimizers as equations, run as one pass over memory.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        import neon

        typer.echo(f"neon {neon.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[  # noqa: ARG001
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Optimizers as equations, run as one pass over memory."""
    from neon.commands.terminal import spell_what_cannot_be_shown

    spell_what_cannot_be_shown()


@app.command()
def compare(
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            help='An optimizer, such as "Adam(learning_rate=3e-3)"; give it once for each. '
            "A rule of your own: mypackage.myfile:MyRule(lr=0.1). Default: some that are common."
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--every", help="Every rule of neon, beside those given.")] = False,
    task: Annotated[
        str | None,
        typer.Option(help="module:function that returns a neon.compare.Task. Default: scikit-learn's digits."),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Passes over the training samples.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Samples in a step.")] = 64,
    seed: Annotated[int, typer.Option(help="Of weights, batches and dropout.")] = 0,
    target: Annotated[float, typer.Option(help="Validation accuracy to reach, 0 to 1.")] = 0.95,
    output: Annotated[Path, typer.Option(help="Where results and figure are kept.")] = Path("neon-compare"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Train again what is finished.")] = False,
) -> None:
    """Train one network with several optimizers, from the same weights and on the same batches.

    Ends with a table, and with the curves as PNG and SVG. Ctrl-C keeps every whole epoch; the same
    command then goes on from there, to the same bits.
    """
    from rich.console import Console

    from neon.commands.compare.compare_command import run_command
    from neon.commands.compare.default_optimizers import every_optimizer
    from neon.commands.compare.training import Settings

    with _told("neon compare: "):
        settings = Settings(epochs=epochs, batch_size=batch_size, seed=seed)
        texts = [*(optimizer or ()), *(every_optimizer() if every else ())]
        run_command(texts, task, settings, target, output, Console(), fresh=fresh)


@app.command()
def bench(
    kinds: Annotated[
        str | None,
        typer.Option(help="Of step, rounding, states, statistics, backward, start, memory, kept; separated by commas."),
    ] = None,
    rules: Annotated[str | None, typer.Option(help="Such as Adam,Lion; every. Default: some that are common.")] = None,
    shapes: Annotated[str | None, typer.Option(help="Of large, resnet50, gpt2, llama1b (GPU), tiny, groups.")] = None,
    options: Annotated[str | None, typer.Option(help="Of plain, norm, value: how gradients are clipped.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Turns of each contender. Default: by shape.")] = None,
    threads: Annotated[int | None, typer.Option(help="Of torch and numba. Default: as many as torch uses.")] = None,
    compiled: Annotated[bool, typer.Option("--compiled", help="Measure torch.compile of torch's step too.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A few lines of each kind, within two minutes.")] = False,
    output: Annotated[Path, typer.Option(help="Where results and figure go.")] = Path("benchmarks/results"),
    plot_only: Annotated[Path | None, typer.Option(help="Show and draw this result again.")] = None,
    device: Annotated[str, typer.Option(help="Where the tensors are: cpu, cuda or xpu.")] = "cpu",
) -> None:
    """Measure how fast steps are here, beside torch.optim and the limit of memory, in about half an hour.

    Ends with tables of what was measured and which targets are met, with a JSON file and a figure.
    """
    from rich.console import Console

    from neon.commands.bench.bench_command import Request, redraw, run_command

    console = Console()
    with _told("neon bench: "):
        if plot_only is not None:
            redraw(plot_only, console)
        else:
            request = Request(kinds, rules, shapes, options, rounds, threads, compiled, quick, output, device)
            run_command(request, console)


@app.command()
def show(
    optimizer: Annotated[
        str, typer.Argument(help='A rule: adam, "Adam(gradient_clip_norm=1.0)" or mypackage.myfile:MyRule.')
    ],
    dtype: Annotated[str, typer.Option(help="Of weights and gradients: float32, bfloat16, ...")] = "float32",
    device: Annotated[str, typer.Option(help="Whose source is shown: cpu or cuda.")] = "cpu",
) -> None:
    """Print a rule's equation, its graph and the source generated for it."""
    from neon.commands.show import describe, find

    with _told():
        print(describe(*find(optimizer, dtype), device))  # typer.echo writes UTF-8 where ASCII is asked for


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A file that optimizer.statistics() has written: .jsonl or .csv.")],
    by: Annotated[str, typer.Option(help="What has a row of its own: layer or parameter.")] = "layer",
    title: Annotated[str | None, typer.Option(help="Of the figure. Default: the name of the file.")] = None,
    output: Annotated[Path, typer.Option(help="Where the figures go.")] = Path("neon-report"),
) -> None:
    """Draw what the steps of a run did to each layer: update/weight and gradients, as heat maps, layer by step."""
    from rich.console import Console

    from neon.commands.report.report_command import run_command

    with _told("neon report: "):
        run_command(run, by, title, output, Console())


@app.command()
def memory(
    model: Annotated[
        str,
        typer.Argument(help="module:name of a torch.nn.Module, or of a class or function that gives one."),
    ],
    optimizer: Annotated[
        list[str] | None,
        typer.Option(
            help="An optimizer, such as \"AdamW(state_dtype='int8')\", which is shown in every format; of several "
            "each as it is written. Default: some that are common."
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of weights and gradients: float32, bfloat16, ... Default: as the model has it.")
    ] = None,
    ranks: Annotated[int, typer.Option(help="Processes that fully_shard divides the model over.")] = 1,
    device_memory: Annotated[str | None, typer.Option(help="Say what fits in so much, such as 24GB or 80GiB.")] = None,
    device: Annotated[str, typer.Option(help="Where it is to be trained: cuda, xpu or cpu.")] = "cuda",
) -> None:
    """Count what weights, gradients, states and optimizer.step() take in each format, without allocating them.

    Activations are left out.
    """
    from rich.console import Console

    from neon.commands.memory.memory_command import run_command
    from neon.commands.memory.memory_request import Request

    with _told("neon memory: "):
        run_command(Request(model, optimizer or (), dtype, ranks, device_memory, device), Console())


@contextmanager
def _told(command: str = "") -> Iterator[None]:
    """End with one line on standard error where the request cannot be used, or where the user interrupts it."""
    from neon.commands.errors import UsageError

    try:
        yield
        return
    except UsageError as error:
        message, code = f"{command}{error}", USAGE
    except KeyboardInterrupt as stop:
        message, code = str(stop) or "Interrupted.", INTERRUPTED
    print(message, file=sys.stderr)
    raise typer.Exit(code)
