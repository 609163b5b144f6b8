"""The table of what a step did: by layer, as numbers, printed."""

from __future__ import annotations

import math
import pickle
import sys
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from statistics_rows import row

from neon.optimizers import AdamW
from neon.statistics.table import COLUMNS, Row, StatisticsTable

NAN, INF = math.nan, math.inf


def layer_of(*rows: Row) -> Row:
    [found] = StatisticsTable(1, rows).by_layer()
    return found


@pytest.mark.parametrize(
    ("update", "weight", "expected"),
    [
        (1.0, 4.0, 0.25), (0.0, 4.0, 0.0), (0.0, 0.0, 0.0), (1.0, 0.0, INF), (INF, 0.0, INF), (NAN, 0.0, NAN),
        (1.0, NAN, NAN), (INF, INF, NAN), (1.0, INF, 0.0),
    ],
)  # fmt: skip
def test_update_to_weight(update: float, weight: float, expected: float) -> None:
    np.testing.assert_equal(row("w", update_norm=update, weight_norm=weight).update_to_weight, expected)


@pytest.mark.parametrize(
    ("factors", "expected"), [((), None), ((0.5,), 0.5), ((0.5, 0.25), 0.125), ((0.5, NAN), NAN), ((0.0, 1.0), 0.0)]
)
def test_clip_factor(factors: tuple[float, ...], expected: float | None) -> None:
    np.testing.assert_equal(row("w", clip_factors=factors).clip_factor, expected)


# -- the table -------------------------------------------------------------------------------------


def test_it_is_a_small_collection_of_rows() -> None:
    rows = [row("0.weight"), row("0.bias")]
    table = StatisticsTable(7, rows)
    assert (len(table), list(table), table.step) == (2, rows, 7)
    assert table["0.bias"] is rows[1]
    rows.clear()
    assert len(table) == 2
    assert pickle.loads(pickle.dumps(table)) == table


def test_names_of_several_optimizers() -> None:
    table = StatisticsTable(3, [row("0.weight"), row("scale")])
    named = table.prefixed("critic")
    assert [(each.parameter, each.layer) for each in named] == [
        ("critic.0.weight", "critic.0"),
        ("critic.scale", "critic"),
    ]
    assert (named.step, named["critic.scale"].gradient_norm) == (3, table["scale"].gradient_norm)
    assert [each.parameter for each in named.by_layer()] == ["critic.0", "critic"]
    assert [each.parameter for each in table.by_layer().prefixed("critic")] == ["critic.0", "critic"]


def test_a_name_that_is_not_there() -> None:
    table = StatisticsTable(7, [row("0.weight"), row("0.bias")])
    with pytest.raises(KeyError, match=r"no row '0.wieght' in the statistics of step 7. Did you mean '0.weight'\?"):
        table["0.wieght"]
    with pytest.raises(KeyError, match=r"There are: 0.weight, 0.bias"):
        table["something else"]


def test_asking_twice_makes_one_table() -> None:
    """A callback asks after every step, most of which were not looked at."""
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = AdamW().attach([("w", param)], statistics=2)
    tables = []
    for _ in range(5):
        param.grad = torch.ones(3)
        optimizer.step()
        tables.append(optimizer.statistics())
    assert [table and table.step for table in tables] == [None, 2, 2, 4, 4]
    assert tables[1] is tables[2]
    assert tables[3] is tables[4]


# -- by layer --------------------------------------------------------------------------------------


def test_layers_stand_in_the_order_of_their_first_parameters() -> None:
    table = StatisticsTable(3, [row("b.weight"), row("a.weight"), row("b.bias"), row("scale")]).by_layer()
    assert [(r.parameter, r.layer) for r in table] == [("b", "b"), ("a", "a"), ("", "")]
    assert table.step == 3
    assert table["b"].elements == 20


@pytest.mark.parametrize("column", ["gradient_norm", "weight_norm", "update_norm"])
@pytest.mark.parametrize(
    ("norms", "expected"),
    [((3.0, 4.0), 5.0), ((0.0, 0.0), 0.0), ((1e200, 1e200), math.sqrt(2) * 1e200), ((1.0, INF), INF),
     ((INF, NAN), NAN), ((NAN, 1.0), NAN)],
)  # fmt: skip
def test_norms_of_a_layer(column: str, norms: tuple[float, float], expected: float) -> None:
    found = layer_of(*(row(f"0.{number}", **{column: norm}) for number, norm in enumerate(norms)))
    np.testing.assert_allclose(getattr(found, column), expected, rtol=1e-15)


def test_ratio_of_a_layer_is_that_of_its_norms() -> None:
    found = layer_of(row("0.weight", weight_norm=4.0, update_norm=0.3), row("0.bias", weight_norm=0.0, update_norm=0.4))
    assert found.update_to_weight == 0.125


@pytest.mark.parametrize(("values", "expected"), [((1.0, 2.0), 2.0), ((2.0, NAN), NAN), ((NAN, 2.0), NAN)])
def test_largest_gradient_of_a_layer(values: tuple[float, float], expected: float) -> None:
    found = layer_of(*(row(f"0.{number}", largest_gradient=value) for number, value in enumerate(values)))
    np.testing.assert_equal(found.largest_gradient, expected)


@pytest.mark.parametrize("column", ["unmoved", "lost", "clipped"])
def test_shares_of_a_layer_go_by_elements(column: str) -> None:
    found = layer_of(row("0.weight", elements=30, **{column: 0.5}), row("0.bias", elements=10, **{column: 0.1}))
    assert getattr(found, column) == pytest.approx(0.4, rel=1e-15)


def test_shares_of_no_elements_are_none_of_them() -> None:
    assert layer_of(row("0.weight", elements=0, unmoved=0.0)).unmoved == 0.0


def test_what_clips_only_a_part_of_a_layer() -> None:
    assert layer_of(row("0.weight"), row("0.bias")).clipped is None
    assert layer_of(row("0.weight", elements=30, clipped=0.4), row("0.bias", elements=10)).clipped == 0.3
    assert layer_of(row("0.weight"), row("0.bias")).clip_factors == ()
    assert layer_of(row("0.weight", clip_factors=(0.5, 0.5)), row("0.bias")).clip_factors == (0.5, 0.5)
    assert layer_of(row("0.w", clip_factors=(0.5,)), row("0.b", clip_factors=(0.9, 0.5))).clip_factors == (0.9, 0.5)
    np.testing.assert_equal(layer_of(row("0.w", clip_factors=(0.5,)), row("0.b", clip_factors=(NAN,))).clip_factor, NAN)


def test_rates_of_a_layer() -> None:
    assert layer_of(row("0.weight", learning_rate=0.1), row("0.bias", learning_rate=0.1)).learning_rate == 0.1
    assert layer_of(row("0.weight", learning_rate=0.1), row("0.bias", learning_rate=0.2)).learning_rate is None
    assert layer_of(row("0.weight", learning_rate=None)).learning_rate is None


def test_a_table_by_layer_stays_as_it_is() -> None:
    table = StatisticsTable(1, [row("0.weight", clipped=0.3), row("0.bias"), row("1.weight")]).by_layer()
    assert table.by_layer() == table


# -- as numbers ------------------------------------------------------------------------------------


def test_to_dict_is_plain_python() -> None:
    given = row("0.weight", gradient_norm=NAN, update_norm=INF, clip_factors=(0.5,))
    found = StatisticsTable(4, [given]).to_dict()
    assert found.keys() == {"step", "parameters"}
    values = found["parameters"]["0.weight"]
    assert ["step", "parameter", *values] == list(COLUMNS)
    np.testing.assert_equal(values["gradient_norm"], NAN)
    assert (values["update_to_weight"], values["clip_factors"], values["clip_factor"]) == (INF, (0.5,), 0.5)


def test_columns_have_every_field_of_a_row() -> None:
    assert {*Row.__dataclass_fields__} < {*COLUMNS}
    assert {*COLUMNS} - {*Row.__dataclass_fields__} == {"step", "update_to_weight", "clip_factor"}


def test_to_pandas_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"needs pandas, which is not installed. Run: pip install pandas"):
        StatisticsTable(1, [row("w")]).to_pandas()


def test_to_pandas_gives_it_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pandas: what its constructor is given."""

    class Frame:
        def __init__(self, records: Any, columns: Any) -> None:
            self.records, self.columns = records, columns

        from_records = classmethod(lambda cls, records, columns: cls(records, columns))

        def set_index(self, name: str) -> tuple[str, Any, Any]:
            return name, self.records, self.columns

    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=Frame))
    table = StatisticsTable(1, [row("w", learning_rate=None)])
    assert table.to_pandas() == ("parameter", table.records(), list(COLUMNS))


def test_to_pandas() -> None:
    pytest.importorskip("pandas", reason="pandas is not installed")
    frame = StatisticsTable(5, [row("0.weight", update_norm=NAN), row("0.bias", learning_rate=None)]).to_pandas()
    assert frame.index.name == "parameter"
    assert frame.loc["0.bias", "gradient_norm"] == 3.0
    assert math.isnan(frame.loc["0.weight", "update_norm"])
    assert list(frame["step"]) == [5, 5]


# -- printed ---------------------------------------------------------------------------------------


def printed(table: StatisticsTable, width: int) -> list[str]:
    file = StringIO()
    Console(file=file, width=width).print(table)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_numbers_have_three_digits_and_none_is_hidden() -> None:
    weight = row("a.w", gradient_norm=0.0123456, update_norm=INF, unmoved=1e-9)
    table = StatisticsTable(12, [weight, row("a.b", gradient_norm=NAN, elements=1234)])
    lines = str(table).splitlines()
    assert lines[0] == "step 12"
    heads = [
        "parameter",
        "elements",
        "gradient",
        "weight",
        "update",
        "update/weight",
        "max",
        "|g|",
        "unmoved",
        "lost",
        "rate",
    ]
    assert lines[2].split() == heads
    assert lines[4].split() == ["a.w", "10", "0.0123", "2", "inf", "inf", "1.5", "<0.1", "%", "5", "%", "0.001"]
    assert lines[5].split() == ["a.b", "1,234", "nan", "2", "0.002", "0.001", "1.5", "10", "%", "5", "%", "0.001"]


def test_columns_of_clips_where_something_clips() -> None:
    lines = str(StatisticsTable(1, [row("w", clipped=0.25, clip_factors=(0.5, 0.5), learning_rate=None)])).splitlines()
    assert "clipped   clip factor" in lines[2]
    assert "rate" not in lines[2]
    assert lines[4].split()[-3:] == ["25", "%", "0.25"]


def test_a_table_by_layer_says_so() -> None:
    lines = str(StatisticsTable(1, [row("0.weight"), row("scale")]).by_layer()).splitlines()
    assert [line.split()[0] for line in (lines[2], *lines[4:6])] == ["layer", "0", "(model)"]


def test_a_name_is_no_markup() -> None:
    assert "[red]w" in str(StatisticsTable(1, [row("[red]w")]))


def test_a_narrow_terminal_has_no_cut_numbers() -> None:
    table = StatisticsTable(1, [row("blocks.10.attention.query.weight", gradient_norm=1.23456e-10)])
    wide, narrow = printed(table, 200), printed(table, 80)
    assert not any("no room" in line for line in wide)
    assert max(map(len, narrow)) <= 80
    assert "…" not in "".join(narrow)
    assert "no room for: elements, max |g|" in "\n".join(narrow)
    assert "1.23e-10" in "\n".join(narrow)


def test_an_empty_table() -> None:
    table = StatisticsTable(1, [])
    assert (len(table), table.to_dict()["parameters"], len(table.by_layer())) == (0, {}, 0)
    assert "step 1" in str(table)
