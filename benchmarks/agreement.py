"""Whether rules step as the packages that have them: twenty steps on the same weights and gradients, in a table.

    benchmarks/agreement.sh                                # a temporary environment with the packages, then this
    python benchmarks/agreement.py                         # where they are installed
    python benchmarks/agreement.py --of reference          # not neon but the references in numpy, tests/reference.py

A rule that neon does not have, or has otherwise on purpose, is compared by its reference. Weights have 0, 1, 2 and 4
dimensions, those of rules of matrices what a row says. All that both keep is compared, states and shared numbers too,
relative to the largest magnitude it had on the way. In float64 only rounding may differ. In float32 a package rounds at
places of its own: the bounds are what was seen of neon, and some more, for sums are in another order on other
processors.

Left out: timm's LAMB counts the steps of a group, the reference those of a tensor, so that a tensor without a
gradient now and then has another bias correction.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from agreement_cases import STATES, WORDS, Case, Numbers, all_cases, in_torch_words
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
import reference

STEPS = 20
SHAPES: list[tuple[int, ...]] = [(1,), (7,), (3, 5), (2, 3, 4, 5), (33, 17), ()]
HEADINGS = ("of", "case", "float64", "absolute", "of what", "float32, ulp", "absolute", "of what", "within")
RIGHT = ("float64", "absolute", "float32, ulp")
Seen = dict[str, np.ndarray]


def weights(case: Case) -> list[np.ndarray]:
    """Exact in float32."""
    rng = np.random.default_rng(7)
    return [np.zeros(s) if case.zeros else exact(rng.standard_normal(s)) for s in shapes(case)]


def shapes(case: Case) -> list[tuple[int, ...]]:
    return [*case.shapes] or SHAPES[: None if case.scalars else -1]


def exact(values: np.ndarray) -> np.ndarray:
    """In float64, but rounded to float32."""
    return np.asarray(values, dtype=np.float32).astype(np.float64)


def gradients(case: Case, step: int) -> list[np.ndarray | None]:
    """A direction that turns round, noise, and a changing size: an estimate of the distance grows. Exact in float32."""
    lasting, noise = np.random.default_rng(11), np.random.default_rng([13, step])
    size, turned = (1.0, 0.25, 0.5)[step % 3], np.cos(step / 5)
    made = [size * (turned * lasting.standard_normal(s) + 0.2 * noise.standard_normal(s)) for s in shapes(case)]
    return [None if case.absent and step % 3 == 1 and i % 2 else exact(g) for i, g in enumerate(made)]


def numbers_of_groups(case: Case, step: int) -> list[Numbers]:
    """What a group has at a step: the case's numbers, its own, and the rate by the schedule."""
    groups = []
    for i, own in enumerate(case.groups or ({},)):
        numbers = case.numbers | own
        rate = numbers["learning_rate"] * (case.rates(step) if case.rates else 1.0)
        groups.append(numbers | {"learning_rate": 0.0 if i == case.frozen and step >= STEPS // 2 else rate})
    return groups


def members(case: Case) -> list[list[int]]:
    """The tensors of each group: every second one where there are two."""
    count = len(case.groups) or 1
    return [[*range(i, len(weights(case)), count)] for i in range(count)]


class Torchlike:
    """A package's optimizer, or neon's attached one."""

    def __init__(self, case: Case, dtype: torch.dtype, *, by_neon: bool) -> None:
        self.case = case
        self.params = [torch.nn.Parameter(torch.tensor(w, dtype=dtype)) for w in weights(case)]
        groups = [
            {"params": [self.params[i] for i in indices], **in_torch_words(own)}
            for indices, own in zip(members(case), case.groups or ({},), strict=True)
        ]
        made = case.neons() if by_neon else None
        self.optimizer = case.make(groups, WORDS[case.rule](case.numbers)) if made is None else made.attach(groups)
        for change in ("train",) if case.rule == "ScheduleFree" else ():
            getattr(self.optimizer, change)()

    def step(self, step: int) -> None:
        for group, numbers in zip(self.optimizer.param_groups, numbers_of_groups(self.case, step), strict=True):
            group["lr"] = numbers["learning_rate"]
        for p, g in zip(self.params, gradients(self.case, step), strict=True):
            p.grad = None if g is None else torch.tensor(g, dtype=p.dtype)
        self.optimizer.step()

    def seen(self) -> Seen:
        """What it keeps, by name; a package's p0 and s are flat, or one number for all."""
        found = {f"weight {i}": p.detach().clone() for i, p in enumerate(self.params)}
        for i, p in enumerate(self.params):
            kept = {name: s for name, s in self.optimizer.state[p].items() if name in STATES[self.case.rule][0]}
            found |= {f"{name} {i}": s for name, s in kept.items()}
        for i, group in enumerate(self.optimizer.param_groups):
            numbers = {name: group[name] for name in STATES[self.case.rule][1] if name in group}
            found |= {
                f"{name} of group {i}": torch.tensor(float(n), dtype=torch.float64) for name, n in numbers.items()
            }
        return {name: s.double().numpy().copy() for name, s in found.items()} | self.averages()

    def averages(self) -> Seen:
        """Schedule-Free's weights to evaluate with; training goes on afterwards from where it was."""
        if self.case.rule != "ScheduleFree":
            return {}
        before = [p.detach().clone() for p in self.params]
        self.optimizer.eval()
        averages = {f"average {i}": p.detach().double().numpy().copy() for i, p in enumerate(self.params)}
        self.optimizer.train()
        for p, kept in zip(self.params, before, strict=True):
            p.data.copy_(kept)
        return averages


class ByHand:
    """The reference, one for each group; Prodigy's is one for all."""

    def __init__(self, case: Case) -> None:
        self.case, self.params = case, weights(case)
        self.shared = case.rule == "Prodigy"
        made = reference.REFERENCES[case.rule]
        numbers = numbers_of_groups(case, 0)[: 1 if self.shared else None]
        self.rules = [made(**n, **case.references_base()) for n in numbers]

    def step(self, step: int) -> None:
        grads, numbers = gradients(self.case, step), numbers_of_groups(self.case, step)
        if self.shared:
            self.share(numbers)
        for rule, indices, own in zip(self.rules, self.parts(), numbers, strict=False):
            rule.learning_rate = max(n["learning_rate"] for n in numbers) if self.shared else own["learning_rate"]
            params = [self.params[i] for i in indices]
            rule.step(params, [grads[i] for i in indices])
            for i, p in zip(indices, params, strict=True):
                self.params[i] = p

    def share(self, numbers: Sequence[Numbers]) -> None:
        self.rules[0].others = {i: own for own, at in zip(numbers, members(self.case), strict=True) for i in at}

    def parts(self) -> list[list[int]]:
        return [[*range(len(self.params))]] if self.shared else members(self.case)

    def seen(self) -> Seen:
        found: Seen = {f"weight {i}": p for i, p in enumerate(self.params)}
        names, shared = STATES[self.case.rule]
        for j, (rule, indices) in enumerate(zip(self.rules, self.parts(), strict=True)):
            for at, i in enumerate(indices):
                own = names[2:] if self.case.rule == "Adafactor" and self.params[i].ndim < 2 else names
                found |= {f"{name} {i}": s for name, s in zip(own, rule.state.get(at, []), strict=False)}
                if self.case.rule == "ScheduleFree":
                    found[f"average {i}"] = rule.average(at, self.params[i])
            found |= {f"{name} of group {j}": np.asarray(float(getattr(rule, name))) for name in shared}
        return found


def largest(runs: Iterator[tuple[Seen, Seen]]) -> tuple[float, str, float]:
    """The largest difference relative to a tensor's largest magnitude so far: with its name, and in itself."""
    scales: dict[str, float] = {}
    worst = (0.0, "", 0.0)
    for ours, theirs in runs:
        for name in ours.keys() & theirs.keys():
            a, b = ours[name], theirs[name]
            b = b.reshape(a.shape) if b.size == a.size else np.broadcast_to(b, a.shape)
            scales[name] = max(scales.get(name, 0.0), float(np.abs(a).max()), float(np.abs(b).max()))
            gap = float(np.abs(a - b).max())
            worst = max(worst, (gap / scales[name] if gap else 0.0, name, gap))
    return worst


def steps(case: Case, dtype: torch.dtype, *, by_neon: bool) -> Iterator[tuple[Seen, Seen]]:
    """Both sides at first, and after each step."""
    ours = Torchlike(case, dtype, by_neon=True) if by_neon else ByHand(case)
    theirs = Torchlike(case, dtype, by_neon=False)
    yield ours.seen(), theirs.seen()
    for step in range(STEPS):
        ours.step(step)
        theirs.step(step)
        yield ours.seen(), theirs.seen()


def row(case: Case, of: str) -> tuple[list[str], bool, tuple[float, float]]:
    """A line of the table, whether it stays within the bounds, and how far apart it is in float64 and in float32."""
    by_neon = of == "neon" and case.neons() is not None
    far, name, gap = largest(steps(case, torch.float64, by_neon=by_neon))
    low, low_name, low_gap = largest(steps(case, torch.float32, by_neon=by_neon))
    ulp = low / 2**-23
    told = f"{case.name} (neon: {case.differs})" if case.differs else case.name
    kept = far <= case.float64_bound and (not by_neon or ulp <= case.float32_ulp)
    return [
        "neon" if by_neon else "reference", told, f"{far:.1e}", f"{gap:.1e}", name,
        f"{ulp:.1f}", f"{low_gap:.1e}", low_name, "yes" if kept else "NO",
    ], kept, (far, ulp)  # fmt: skip


def main(of: str, only: str, *, markdown: bool) -> int:
    torch.set_default_dtype(torch.float64)  # in which torch keeps the numbers that each tensor has of its own
    console, kept = Console(width=None if sys.stdout.isatty() else 150), True
    for (rule, package), cases in groupby(all_cases(), lambda case: (case.rule, case.package)):
        if only.lower() not in rule.lower():
            continue
        table = Table(title=f"{rule}: {package} {version(package)}", title_justify="left")
        for heading in HEADINGS:
            table.add_column(heading, justify="right" if heading in RIGHT else "left")
        worst: list[tuple[float, float]] = []
        for case in cases:
            cells, fine, apart = row(case, of)
            table.add_row(*cells)
            kept &= fine
            worst += [apart] if cells[0] == of else []
        if not markdown:
            console.print(table)
        elif worst:
            far, ulp = map(max, zip(*worst, strict=True))
            print(f"| `{rule}` | {package} {version(package)} | {len(worst)} | {far:.1e} | {ulp:.1f} |", flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--of", choices=("neon", "reference"), default="neon", help="what is compared with the packages"
    )
    parser.add_argument("--rule", default="", help="a part of the rule's name")
    parser.add_argument("--markdown", action="store_true", help="the worst of each rule, as rows of a page")
    given = parser.parse_args()
    sys.exit(main(given.of, given.rule, markdown=given.markdown))
