"""Ranks on one machine: 4 are forked, then 3, 2 and 1; every rank runs all cases and keeps what they give.

A program: `python distributed_run.py [--all] [FIRST_WORDS_OF_A_CASE]`, in the folder where results are kept.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import sys
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from distributed_table import CASES, WAITING, name_of, worlds

MODULES = (
    "distributed_cases", "distributed_saving", "distributed_low", "distributed_equal", "distributed_matrices",
    "distributed_seen",
)  # fmt: skip
WORLDS = (4, 3, 2, 1)  # what is saved by four is loaded by those of fewer
LIMIT = 60  # seconds that a rank waits in one case, before it says where and ends


def kept(case: tuple[Any, ...], world: int, rank: int) -> str:
    """The file in which a rank keeps what a case gave it."""
    return f"{name_of(case)}-{world}-{rank}.pt"


def said(world: int, rank: int) -> str:
    """The file in which a rank writes what goes wrong beside the cases: where it hangs, what it warns of."""
    return f"said-{world}-{rank}.txt"


def attempt(case: tuple[Any, ...], world: int, rank: int) -> Any:
    """What a case gives, or its traceback; each has a process group of its own, so that one failure is one."""
    modules = [importlib.import_module(module) for module in MODULES]
    name, *arguments = case
    meeting = Path(f"{name_of(case)}-{world}.meeting").absolute()
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=timedelta(seconds=LIMIT)
        )
        torch.manual_seed(0)
        return next(vars(module)[name] for module in modules if name in vars(module))(*arguments)
    except Exception:
        return {"error": traceback.format_exc()}
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def run_rank(cases: list[tuple[Any, ...]], world: int, rank: int) -> None:
    """All cases on one rank; one that hangs ends the rank."""
    with Path(said(world, rank)).open("w") as file:
        os.dup2(file.fileno(), 2)
        for case in cases:
            faulthandler.dump_traceback_later(LIMIT + 5, exit=True)
            torch.save(attempt(case, world, rank), kept(case, world, rank))
        faulthandler.cancel_dump_traceback_later()


def fork(cases: list[tuple[Any, ...]], world: int, rank: int) -> int:
    """The process of a rank; what is imported was imported once, before it."""
    child = os.fork()
    if child == 0:
        try:
            run_rank(cases, world, rank)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    return child


def main(*arguments: str) -> None:
    """Run the ranks of one world after the other, up to one in which a rank has ended early."""
    # The last is imported by torch's first step.
    for module in (*MODULES, "torch._dynamo"):
        importlib.import_module(module)
    torch.set_num_threads(1)
    words = [argument for argument in arguments if argument != "--all"] or [""]
    waiting = set() if "--all" in arguments else WAITING
    for world in WORLDS:
        cases = [case for case in CASES if name_of(case).startswith(words[0]) and (case, world) not in waiting]
        cases = [case for case in cases if world in worlds(case)]
        children = [fork(cases, world, rank) for rank in range(world)]
        if any([os.waitpid(child, 0)[1] for child in children]):  # noqa: C419  # all are waited for
            break


if __name__ == "__main__":
    main(*sys.argv[1:])
