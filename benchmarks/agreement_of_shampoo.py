"""Shampoo beside pytorch_optimizer: ScalableShampoo with grafting, and Shampoo of sums without.

ScalableShampoo merges sides unless `shape_interpretation` is off, splits those above its block size, and leaves a
matrix alone of which one side is above its limit: no row has either. Its default roots are by Schur–Newton iteration,
which stops at an error of 1e-3; these are by SVD. Its Shampoo has roots for vectors too, and stands still until the
first roots: here every step makes new ones.
"""

from __future__ import annotations

import importlib
from typing import Any

from agreement_cases import ADAMW, DECAYS, Numbers, falling, in_torch_words, replace, rows

MATRICES = ((3, 5), (33, 17), (16, 16))
OWN = {
    "graft_epsilon": "diagonal_eps", "eps": "matrix_eps", "decouple": "decoupled_weight_decay",
    "start": "start_preconditioning_step", "frequency": "preconditioning_compute_steps",
}  # fmt: skip


def words(numbers: Numbers) -> Numbers:
    """Without what says which ε it is: theirs is at the start."""
    named = {OWN.get(word, word): number for word, number in in_torch_words(numbers).items()}
    return {word: number for word, number in named.items() if word != "epsilon_of"}


def scalable(groups: list[Any], numbers: Numbers) -> Any:
    module: Any = importlib.import_module("pytorch_optimizer")
    kinds: Any = importlib.import_module("pytorch_optimizer.optimizer.utils.graft").LayerWiseGrafting
    kind = kinds["SQRTN" if numbers["graft"] == "sign" else numbers["graft"].upper()]
    named = {word: number for word, number in numbers.items() if word != "graft"}
    return module.ScalableShampoo(groups, **named, graft_type=kind, shape_interpretation=False, use_svd=True)


def of_sums(groups: list[Any], numbers: Numbers) -> Any:
    module: Any = importlib.import_module("pytorch_optimizer")
    named = {word: numbers[word] for word in ("lr", "matrix_eps", "weight_decay", "preconditioning_compute_steps")}
    return module.Shampoo(groups, **named, weight_decouple=True)


STATES = {"Shampoo": ((), ())}
WORDS = {"Shampoo": words}
SCALABLE = replace(
    ADAMW, rule="Shampoo", package="pytorch_optimizer", make=scalable, shapes=((1,), (7,), *MATRICES), float32_ulp=16.0,
    numbers={
        "learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.99, "epsilon": 0.01, "graft_epsilon": 1e-10, "wdecay": 0.0,
        "frequency": 3, "start": 5, "graft": "sgd", "nesterov": True, "decouple": True, "epsilon_of": "start",
    },
)  # fmt: skip
SUMS = replace(
    SCALABLE, make=of_sums, shapes=MATRICES,
    numbers={
        **SCALABLE.numbers, "beta_1": 0.0, "beta_2": 1.0, "frequency": 1, "start": 0, "graft": "none",
        "nesterov": False,
    },
)  # fmt: skip

CASES = [
    *rows(
        SCALABLE, sgd={}, adagrad={"graft": "adagrad"}, rmsprop={"graft": "rmsprop"}, sign={"graft": "sign"},
        no_graft={"graft": "none", "learning_rate": 1e-3}, plain_momentum={"nesterov": False},
        weight_decay={"wdecay": 0.3}, coupled_decay={"wdecay": 0.3, "decouple": False, "graft": "rmsprop"},
        from_the_start={"start": 1, "frequency": 1}, falling={"rates": falling, "wdecay": 0.3},
        two_groups={"groups": DECAYS},
    ),
    *rows(SUMS, sums={}, sums_weight_decay={"wdecay": 0.3}),
]  # fmt: skip
