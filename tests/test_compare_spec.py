"""Optimizer strings: what is read, and what is refused with which words."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from neon.commands.optimizer_text import short_labels
from neon.compare import DEFAULT_OPTIMIZERS, SpecError, parse_optimizer
from neon.optimizers import Adam, MultiOptimizer


@pytest.mark.parametrize(
    ("text", "canonical", "name", "arguments"),
    [
        ("Adam()", "Adam()", "Adam", ()),
        ("Adam", "Adam()", "Adam", ()),
        (
            " Adam( learning_rate = 3e-3 ) ",
            "Adam(learning_rate=0.003)",
            "Adam",
            ("learning_rate=0.003",),
        ),
        (
            "GradientDescentMomentum(1e-2,.9,nesterov=True)",
            "GradientDescentMomentum(0.01, 0.9, nesterov=True)",
            "GradientDescentMomentum",
            ("0.01", "0.9", "nesterov=True"),
        ),
        (
            "GradientDescentMomentum(0.1, 0.9, schedule=Schedule([2, 6], 0.5))",
            "GradientDescentMomentum(0.1, 0.9, schedule=Schedule([2, 6], 0.5))",
            "GradientDescentMomentum",
            ("0.1", "0.9", "schedule=Schedule([2, 6], 0.5)"),
        ),
        ("RMSprop(name='a:b(c)')", "RMSprop(name='a:b(c)')", "RMSProp", ("name='a:b(c)'",)),
        (
            "Adam(gradient_clip_norm=None)",
            "Adam(gradient_clip_norm=None)",
            "Adam",
            ("gradient_clip_norm=None",),
        ),
        (
            'MultiOptimizer({"default": Adam(), "head": None})',
            "MultiOptimizer({'default': Adam(), 'head': None})",
            "MultiOptimizer",
            ("{'default': Adam(), 'head': None}",),
        ),
    ],
)
def test_an_optimizer_is_read(text: str, canonical: str, name: str, arguments: tuple[str, ...]) -> None:
    spec = parse_optimizer(text)
    assert (spec.text, spec.name, spec.arguments) == (canonical, name, arguments)
    assert type(spec.build()).__name__ == name
    assert spec.build() is not spec.build()


def test_values_arrive_in_the_optimizer() -> None:
    received: list[object] = []

    class Probe(Adam):
        def __init__(self, *values: object) -> None:
            super().__init__()
            received.extend(values)

    module = ModuleType("values_module")
    module.Probe = Probe  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "values_module", module)
        parse_optimizer("values_module:Probe(-1, 2.5, 'a', True, None, [1, (2,)], {'k': -3e-1})")
    assert received == [-1, 2.5, "a", True, None, [1, (2,)], {"k": -0.3}]


@pytest.mark.parametrize("text", DEFAULT_OPTIMIZERS)
def test_the_default_optimizers_are_read(text: str) -> None:
    assert parse_optimizer(text).text == parse_optimizer(parse_optimizer(text).text).text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("__import__('os')", "unknown class '__import__'"),
        ("__import__('os').system('true')", "which is not allowed. Only classes"),
        ("os.system('true')", "calls 'os.system', which is not allowed"),
        ("eval('1')", "unknown class 'eval'"),
        ("Adam(learning_rate=__import__('os'))", "unknown class '__import__'"),
        ("Adam(learning_rate=(lambda: 1)())", "calls 'lambda: 1', which is not allowed"),
        ("(lambda: Adam())()", "which is not allowed"),
        ("Adam(learning_rate=1e-3 * 2)", r"holds '0.001 \* 2', which is not allowed"),
        ("Adam(learning_rate=[x for x in ()])", r"holds '\[x for x in \(\)\]'"),
        ("Adam(name=f'{1}')", r"holds .*f'\{1\}'"),
        (
            "Adam(learning_rate=rate)",
            "holds 'rate', which is not allowed. Allowed: classes",
        ),
        ("Adam(learning_rate=1j)", "holds '1j', which is not allowed"),
        ("Adam(name=b'x')", "holds \"b'x'\", which is not allowed"),
        ("Adam(...)", r"holds '\.\.\.', which is not allowed"),
        ("Adam(-True)", "holds '-True', which is not allowed"),
        ("Adam(*[1])", r"holds '\*\[1\]', which is not allowed"),
        ("Adam(**{'name': 'x'})", r"\*\* is not allowed; write each argument's name"),
        ("MultiOptimizer({**{}})", "must be a string or a number"),
        ("Adm()", r"unknown class 'Adm' in 'Adm\(\)'. Did you mean Adam\? Optimizers: .*Lion"),
        ("Optimizer()", "unknown class 'Optimizer'"),
        ("Adam(lr=0.1)", r"Adam\(lr=0.1\): .*'lr'\. Here it is called learning_rate\. Adam takes stochastic_round, "),
        (
            "Schedule(interval=3)",
            "unexpected keyword argument 'interval'. Schedule takes step_config",
        ),
        ("GradientDescentMomentum(0.1)", "missing a required argument: 'momentum_coef'"),
        ("Adam(learning_rate=-1.0)", r"Adam\(learning_rate=-1.0\): .*learning_rate"),
        ("MultiOptimizer({'Linear': Adam()})", "default"),
        ("MultiOptimizer({default: Adam()})", 'put names in quotes, such as "default"'),
        ("MultiOptimizer({'default': Adam})", r"Adam is a class; write Adam\(...\)"),
        ("Schedule()", "makes a Schedule, which is not an optimizer. Optimizers: "),
        ("3", r"'3' is not an optimizer. Write Adam\(learning_rate=0.003\)"),
        ("", "cannot read the optimizer ''"),
        ("Adam(", r"cannot read the optimizer 'Adam\(': .*Write a class of neon.optimizers"),
        ("Adam(); Adam()", "cannot read the optimizer"),
        ("Adam(\0)", "cannot read the optimizer"),
        ("(" * 5000, "cannot read the optimizer"),
        ("A" * 20_000, "at most 10000 characters; received 20000"),
        ("no_such_module:Rule(lr=1)", "cannot import 'no_such_module': ModuleNotFoundError"),
        ("json:loads('1')", "json:loads must be a subclass of neon.optimizers.Optimizer"),
        ("json:load()", "json:load must be a subclass"),
        ("json:Decoder()", "has no 'Decoder'. Did you mean"),
    ],
)
def test_what_is_no_optimizer_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_optimizer(text)
    assert "\n" not in str(caught.value)


def test_nothing_is_called_before_the_string_is_refused(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    with pytest.raises(SpecError):
        parse_optimizer(f"Adam(name=open({str(witness)!r}, 'w'))")
    assert not witness.exists()


def test_a_rule_of_the_users_own_may_stand_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_rules.py").write_text(
        "from neon.optimizers import Adam\n"
        "class Mine(Adam):\n"
        "    def __init__(self, lr):\n"
        "        super().__init__(learning_rate=lr)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    spec = parse_optimizer("own_rules:Mine(lr=0.1)")
    assert (spec.text, spec.name) == ("own_rules:Mine(lr=0.1)", "Mine")
    nested = parse_optimizer('MultiOptimizer({"default": own_rules:Mine(0.1), "head": None})')
    assert nested.text == "MultiOptimizer({'default': own_rules:Mine(0.1), 'head': None})"
    assert isinstance(nested.build(), MultiOptimizer)


def test_labels_tell_optimizers_of_one_class_apart() -> None:
    texts = [
        "Lion()",
        "Adam(name='x', learning_rate=0.1)",
        "Adam(name='x', learning_rate=0.2)",
        "Adam(name='x')",
    ]
    labels = short_labels([parse_optimizer(text) for text in texts])
    assert labels == ["Lion", "Adam(learning_rate=0.1)", "Adam(learning_rate=0.2)", "Adam"]


def test_long_labels_stay_different() -> None:
    texts = [f"Adam(name='{'x' * 60}{end}')" for end in "ab"]
    labels = short_labels([parse_optimizer(text) for text in texts])
    assert labels[0] != labels[1]
    assert max(map(len, labels)) <= 52
