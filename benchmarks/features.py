"""What optimizers do beside their rule, tried: a table of features by library.

    python benchmarks/features.py                       # every library of peers.py that can be imported
    python benchmarks/features.py --columns neon optimi --output /tmp/features

Each feature is a check that trains a small network with AdamW of one library, by that library's own option
where it has one. `yes`: the check holds. `no`: it does not, or raises. `–`: there is no option to try.
Writes features.json with the reason for each `no`, and prints the table as it stands in docs/pytorch.md.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import features_in_a_step  # noqa: F401 - fills the table
import features_over_a_run  # noqa: F401 - fills the table
import torch
from feature_table import ELSEWHERE, FEATURES, Check, network, train
from peers import COLUMNS, Library, NoOptionError


def tried(check: Check, lib: Library) -> tuple[str, str | None]:
    """The cell of a feature and a library, and the reason for a `no`."""
    try:
        return ("yes", None) if check(lib) else ("no", "the check does not hold")
    except NoOptionError:
        return "–", None
    except Exception as error:
        return "no", f"{type(error).__name__}: {error}".splitlines()[0][:200]


def run(names: Iterable[str]) -> dict[str, Any]:
    """The report: both tables as feature, then library, then what was found."""
    report: dict[str, Any] = {"versions": {}, "features": {}, "elsewhere": {}, "reasons": {}}
    for name in names:
        try:
            lib = COLUMNS[name]()
        except ImportError:
            continue
        report["versions"][name] = importlib.metadata.version(lib.distribution).partition("+")[0]
        for kind, checks in (("features", FEATURES), ("elsewhere", ELSEWHERE)):
            for text, check in checks.items():
                cell, reason = tried(check, lib)
                report[kind].setdefault(text, {})[name] = cell
                if reason is not None:
                    report["reasons"].setdefault(text, {})[name] = reason
    return report


def markdown(rows: Mapping[str, Mapping[str, str]]) -> str:
    names = list(next(iter(rows.values())))
    lines = [["", *names], ["---"] * (len(names) + 1), *([text, *cells.values()] for text, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--steps-of", choices=COLUMNS, help="only take two steps with a library")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.steps_of:
        model = network()
        train(model, COLUMNS[options.steps_of]().make(model), range(2))
        return
    report = run(options.columns)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "features.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(markdown(report["features"]), markdown(report["elsewhere"]), f"Written to {path}", sep="\n\n")


if __name__ == "__main__":
    main()
