"""What optimizers do beside their rule, tried: a table of features by library.

    python benchmarks/features.py                       # every library of peers.py that can be imported
    python benchmarks/features.py --columns neon optimi --output /tmp/features

Each feature is a check that trains a small network with AdamW of one library, by that library's own option
where it has one; a second table is that of Muon. `yes`: the check holds. `no`: it does not, or raises. `–`: there is
no option to try. Writes features.json with the reason for each `no`, and prints the tables as they stand in
docs/pytorch.md.
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
from feature_table import ELSEWHERE, FEATURES, Check, train
from muon_peers import COLUMNS_OF_MUON
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


def run_of_muon() -> dict[str, Any]:
    """The table of Muon, and the reasons."""
    report: dict[str, Any] = {"muon": {}, "reasons of muon": {}}
    for name, make in COLUMNS_OF_MUON.items():
        lib = make()
        for text, check in FEATURES.items():
            cell, reason = tried(check, lib)
            report["muon"].setdefault(text, {})[name] = cell
            if reason is not None:
                report["reasons of muon"].setdefault(text, {})[name] = reason
    report["muon"] = {text: cells for text, cells in report["muon"].items() if {*cells.values()} != {"–"}}
    return report


def markdown(rows: Mapping[str, Mapping[str, str]]) -> str:
    names = list(next(iter(rows.values())))
    lines = [["", *names], ["---"] * (len(names) + 1), *([text, *cells.values()] for text, cells in rows.items())]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=list(COLUMNS))
    parser.add_argument("--steps-of", choices=COLUMNS | COLUMNS_OF_MUON, help="only take two steps with a library")
    parser.add_argument("--muon-alone", action="store_true", help="of the other libraries keep what is in the file")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.steps_of:
        lib = (COLUMNS | COLUMNS_OF_MUON)[options.steps_of]()
        model = lib.network()
        train(model, lib.make(model), range(2))
        return
    path = options.output / "features.json"
    report = json.loads(path.read_text(encoding="utf-8")) if options.muon_alone else run(options.columns)
    report |= run_of_muon()
    options.output.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tables = (markdown(report[table]) for table in ("features", "muon", "elsewhere"))
    print(*tables, f"Written to {path}", sep="\n\n")


if __name__ == "__main__":
    main()
