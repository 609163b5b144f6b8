"""`neon show` prints equation, graph and source, of built-in rules and of a user's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from neon.cli import app

OWN = '''
from neon.optimizers import Optimizer
from neon.optimizers.functions import sign

class SignDescent(Optimizer):
    @staticmethod
    def rule(w, g, *, lr=0.01):
        """w ← w − lr·sign(g)"""
        return w - lr * sign(g)
'''


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["show", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", ["adam", "Adam", "shift_adamax", "gradientdescentmomentum", "RMSprop"])
def test_every_way_to_write_a_name(name: str) -> None:
    text = shown(name)
    assert "─── equation ───" in text
    assert "def stage_0(context):" in text


def test_equation_graph_and_source() -> None:
    text = shown("adam")
    assert "exp_avg    ← β₁·exp_avg + (1−β₁)·g" in text
    assert "exp_avg ← x1" in text
    assert "exp_avg_at[i] = np.float32(exp_avg_out)" in text


def test_options_and_dtype_are_in_the_kernel() -> None:
    text = shown("Adam(gradient_clip_norm=1.0, stochastic_round=True)", "--dtype", "bfloat16")
    assert "sum_of_squares(from_bits(g << 16), over='clip_scope[0]')" in text
    assert "def stage_1(context):" in text
    assert "tensor_key" in text


def test_the_source_for_a_gpu() -> None:
    text = shown("adam", "--device", "cuda")
    assert "exp_avg ← x1" in text
    assert "tl.store(exp_avg_at + i, exp_avg_out.to(tl.float32), mask=inside)" in text


def test_each_optimizer_of_a_mapping() -> None:
    text = shown('MultiOptimizer({"default": Adam(), "Linear": Lion()}, gradient_clip_norm=1.0)')
    assert "═══ default: Adam(" in text
    assert "═══ Linear: Lion(" in text


def test_a_rule_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "signs.py").write_text(OWN, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = shown("signs:SignDescent")
    assert "w ← w − lr·sign(g)" in text
    assert "w_out = (w_in - (s1 * sign((g_in + (s0 * w_in)))))" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Adm"], "Did you mean Adam?"),
        (["adam", "--dtype", "int8"], "unknown dtype 'int8'. Choose one of float64, float32, bfloat16, float16."),
        (["adam", "--device", "tpu"], "unknown device 'tpu'. Choose one of cpu, cuda."),
        (["Adam(lr=0.1)"], "unexpected keyword argument 'lr'. Here it is called learning_rate. Adam takes"),
    ],
)
def test_what_cannot_be_shown(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["show", *arguments])
    assert result.exit_code == 2
    assert message in result.output
