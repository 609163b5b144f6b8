"""Rows of statistics with plain values, for tests of what is done with them."""

from __future__ import annotations

from typing import Any

from neon.statistics.table import Row


def row(parameter: str, **values: Any) -> Row:
    plain = {
        "layer": parameter.rpartition(".")[0], "elements": 10, "gradient_norm": 3.0, "weight_norm": 2.0,
        "update_norm": 0.002, "largest_gradient": 1.5, "unmoved": 0.1, "lost": 0.05, "learning_rate": 1e-3,
    }  # fmt: skip
    return Row(parameter=parameter, **{**plain, **values})
