"""What classes of rules declare: constructors, group values, checks and messages follow from it."""

from __future__ import annotations

import inspect
import math
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from constructors import RULES, described, number_rows

import neon.torch
from neon.arguments import beta, flag, non_negative, unit_interval
from neon.engine.program.numbers import Number, examples
from neon.engine.program.options import DESCRIBED
from neon.engine.program.spaces import Space
from neon.optimizers import WEIGHT, Adam, AdamW, AdEMAMix, GradientDescentMomentum, Optimizer, State, Transform
from neon.optimizers.signatures import CommonOptions


class Triple(Optimizer):
    """A rule whose class has no constructor of its own."""

    pace = Number(0.1, non_negative, "lr", "η ≥ 0")
    beta_1 = Number(0.5, beta, "betas[0]")
    beta_2 = Number(0.6, beta, "betas[1]")
    beta_3 = Number(0.7, beta, "betas[2]")
    turned = Number(False, flag)
    needed = Number(None, unit_interval, "momentum", example=0.25)

    @staticmethod
    def rule(w: Any, g: Any, *, lr: Any, betas: Any, turned: Any, momentum: Any) -> Any:
        step = lr * betas[0] * betas[1] * betas[2] * momentum * g
        return w + step if turned else w - step


class Wild(Optimizer):
    """The same word as Triple has, with another range."""

    momentum = Number(2.0, non_negative)
    wdecay = Number(0.5, non_negative, "weight_decay")  # type: ignore[assignment]

    @staticmethod
    def rule(w: Any, g: Any, *, momentum: Any, weight_decay: Any) -> Any:
        return w - momentum * g - weight_decay * w


@pytest.mark.parametrize("name", RULES)
def test_defaults_in_a_constructor_are_those_that_are_declared(name: str) -> None:
    parameters, numbers = inspect.signature(RULES[name]).parameters, RULES[name]._declared.numbers
    assert numbers or issubclass(RULES[name], Transform)
    for argument, number in numbers.items():
        default = parameters[argument].default
        assert (default is inspect.Parameter.empty) == number.required
        assert number.default in (None, default)
        assert number.meaning
    built = described(name, **examples(RULES[name]))
    assert built.settings(built.group()).program.numbers


def test_what_an_option_is_called_and_where_it_starts_is_in_one_table() -> None:
    described = {word: option.default for word, option in DESCRIBED.items()}
    found = inspect.signature(Optimizer.__init__).parameters
    assert {name: found[name].default for name in found if name not in ("self", "hyperparameters")} == described
    assert {*CommonOptions.__annotations__} <= {*DESCRIBED}


def test_a_constructor_follows_from_the_numbers() -> None:
    assert str(inspect.signature(Triple)).startswith(
        "(needed, pace=0.1, beta_1=0.5, beta_2=0.6, beta_3=0.7, turned=False, *, name: 'str | None' = None, "
        "schedule: 'Schedule | None' = None, wdecay: 'float' = 0.0"
    )
    one, other = Triple(1, 2, wdecay=0.5), Triple(needed=1.0, pace=2.0, wdecay=0.5)
    assert one.group() == other.group()
    assert (
        one.hyperparameters()
        == {"lr": 2.0, "betas": (0.5, 0.6, 0.7), "turned": False, "momentum": 1.0}
        == {**other.hyperparameters()}
    )
    assert repr(one).startswith("Triple(weight_decay=0.5, momentum=1.0, lr=2.0, betas=(0.5, 0.6, 0.7), turned=False)")
    p = torch.nn.Parameter(torch.ones(1))
    p.grad = torch.ones(1)
    Triple(0.5, 1.0, turned=True).attach([p]).step()
    assert p.item() == pytest.approx(1 + 0.5 * 0.5 * 0.6 * 0.7)


@pytest.mark.parametrize(
    ("arguments", "named", "error", "words"),
    [
        ((), {}, TypeError, r"^Triple needs needed: Triple\(needed=\.\.\.\)\.$"),
        ((0.5,), {"needed": 0.5}, TypeError, "^Triple got needed twice"),
        ((0.5,) * 7, {}, TypeError, "^Triple takes 6 arguments without their names .needed, pace, .*; 7 were given"),
        (
            (0.5,),
            {"lr": 1.0},
            TypeError,
            r"^Triple has no argument 'lr'\. Here it is called pace\. Its arguments: need",
        ),
        ((0.5,), {"betas": 1.0}, TypeError, r"Here it is called beta_1 and beta_2 and beta_3\."),
        ((1.5,), {}, ValueError, r"^needed must be in the interval \[0, 1\]\. Received: needed=1\.5"),
        ((0.5,), {"turned": 1}, TypeError, "^turned must be True or False"),
        ((0.5,), {"gradient_clip_norm": -1}, ValueError, "^gradient_clip_norm must be"),
        ((0.5, None), {}, TypeError, "^pace must be a number"),
    ],
)
def test_arguments_of_such_a_constructor_are_refused(
    arguments: tuple[Any, ...], named: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Triple(*arguments, **named)


def test_values_of_groups_are_checked_by_their_class() -> None:
    wild, triple = Wild(), Triple(0.5)
    wild.settings(wild.group() | {"momentum": 3.0})
    with pytest.raises(ValueError, match=r"^momentum must be in the interval \[0, 1\]"):
        triple.settings(triple.group() | {"momentum": 3.0})
    with pytest.raises(ValueError, match=r"^betas must be three numbers, such as \(0\.5, 0\.6, 0\.7\)\."):
        triple.settings(triple.group() | {"betas": (0.1, 0.2)})
    with pytest.raises(ValueError, match=r"^betas\[2\] must be in the interval \[0, 1\)"):
        triple.settings(triple.group() | {"betas": (0.1, 0.2, 1.0)})
    with pytest.raises(TypeError, match=r"^momentum must be a number"):
        triple.settings(triple.group() | {"momentum": None})


def made(base: type[Optimizer] = Optimizer, **parts: Any) -> type[Optimizer]:
    """A class of rules with these parts."""
    return type("Made", (base,), parts)


def rate_and_betas(w: Any, g: Any, *, lr: Any = 0.1, betas: Any = (0.5, 0.6)) -> Any:
    return w - lr * betas[0] * g


@pytest.mark.parametrize(
    ("base", "parts", "error", "words"),
    [
        (
            AdEMAMix,
            {"alpha": 2.0},
            TypeError,
            r"^Made\.alpha has to be a Number\. Received: alpha=2\.0\. Write Number\(2",
        ),
        (
            Adam,
            {"beta_2": Number(0.95, beta, "betas[1]")},
            TypeError,
            r"^Made\.beta_2 starts at 0\.95, but the constructor that Made inherits gives 0\.999\.",
        ),
        (
            Optimizer,
            {"one": Number(0.5, beta, "betas[0]"), "two": Number(0.5, beta, "betas[0]")},
            TypeError,
            r"^The numbers of Made under one word must be betas\[0\], betas\[1\]\. Received: betas\[0\], betas\[0\]\.",
        ),
        (Optimizer, {"one": Number(0.5, beta, "betas[1]")}, TypeError, r"must be betas\. Received: betas\[1\]\."),
        (Optimizer, {"lr": Number(-0.1, non_negative)}, ValueError, "^lr must be a finite number of at least 0"),
        (
            Optimizer,
            {"lr": Number(0.1, non_negative, "mu")},
            TypeError,
            "'mu', which it does not read: it reads lr",
        ),
        (Optimizer, {"decay": Number(0.1, non_negative, "weight_decay")}, TypeError, "a weight decay is called wdecay"),
        (Optimizer, {"epoch": Number(0, non_negative)}, TypeError, "neon keeps 'epoch' for itself"),
        (Optimizer, {"mine": Number(0, non_negative, "updates")}, TypeError, "neon keeps 'updates' for itself"),
        (Optimizer, {"maximize": Number(False, flag, "up")}, TypeError, r"^Made\.maximize cannot have the word 'up'"),
    ],
)
def test_numbers_that_would_be_ignored_or_mean_something_else_are_refused(
    base: type[Optimizer], parts: dict[str, Any], error: type[Exception], words: str
) -> None:
    rule = {"rule": staticmethod(rate_and_betas)} if base is Optimizer else {}
    with pytest.raises(error, match=words):
        made(base, **rule, **parts)


def test_places_under_a_word_go_by_their_index_not_by_the_order_of_declaration() -> None:
    parts = {"two": Number(0.6, beta, "betas[1]"), "one": Number(None, beta, "betas[0]", example=0.5)}
    cls = made(rule=staticmethod(rate_and_betas), lr=Number(0.1, non_negative), **parts)
    assert cls(one=0.3).group()["betas"] == (0.3, 0.6)
    assert made(AdEMAMix, alpha=Number(2.0, non_negative))().group()["alpha"] == 2.0


def test_another_class_may_have_another_word_for_a_value_of_a_group() -> None:
    made(rule=staticmethod(lambda w, g, *, mu: w - mu * g), momentum=Number(0.1, non_negative, "mu"))
    p = torch.nn.Parameter(torch.ones(1))
    assert neon.torch.Adam([{"params": [p], "momentum": 0.5}]).param_groups[0]["momentum"] == 0.5


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (
            State(0.0, of=Space("row", shape=lambda shape: (shape[0],))),
            "has a number for each row; a rule keeps one for each",
        ),
        (State(math.nan), "must start at a number .* or as the WEIGHT. Received: z=nan"),
        (State(None), "must start at a number .* or as the WEIGHT. Received: z=None"),  # type: ignore[arg-type]
        ("w", "must start at a number .* or as the WEIGHT. Received: z='w'"),
    ],
)
def test_states_that_no_kernel_can_keep_are_refused(start: Any, words: str) -> None:
    def rule(w: Any, g: Any, z: Any = start, *, lr: Any = 0.1) -> Any:
        return w - lr * g, z + g

    with pytest.raises(TypeError, match=f"^The state z of the rule rule {words}"):
        made(rule=staticmethod(rule))().attach([torch.nn.Parameter(torch.ones(2, 2))])


@pytest.mark.parametrize("start", [WEIGHT, State(WEIGHT)])
def test_a_state_that_starts_as_the_weight_is_no_moment_of_few_bits(start: Any) -> None:
    def rule(w: Any, g: Any, z: Any = start, *, lr: Any = 0.1) -> Any:
        return w - lr * g, z + g

    p = torch.nn.Parameter(torch.full((5000,), 3.0))
    p.grad = torch.ones(5000)
    optimizer = made(rule=staticmethod(rule))(state_dtype="int8").attach([p])
    optimizer.step()
    assert optimizer.state[p]["z"].dtype == torch.float32
    assert optimizer.state[p]["z"][0] == 4
    with pytest.raises(ValueError, match=r"^state_dtype\['z'\] must be 'float32', 'bfloat16' or 'float16'"):
        made(rule=staticmethod(rule))(state_dtype={"z": "int8"}).attach([p])


def test_a_number_that_is_set_later_is_checked_and_holds() -> None:
    triple = Triple(0.5)
    triple.beta_3 = 0.9
    assert triple.group()["betas"] == (0.5, 0.6, 0.9)
    with pytest.raises(ValueError, match=r"^beta_3 must be in the interval \[0, 1\)\. Received: beta_3=1\."):
        triple.beta_3 = 1
    assert triple.beta_3 == 0.9


def test_a_decay_that_a_rule_declares_takes_the_place_of_the_option() -> None:
    assert Wild().group()["weight_decay"] == 0.5
    assert Wild(wdecay=0.0).group()["weight_decay"] == AdamW(wdecay=0.0).group()["weight_decay"] == 0.0
    assert str(inspect.signature(Wild)).count("wdecay") == 1


def test_constructors_words_are_refused_in_groups_but_where_the_rule_has_them() -> None:
    def group(optimizer: Optimizer, **values: Any) -> Any:
        return optimizer.attach([{"params": [torch.nn.Parameter(torch.ones(1))], **values}]).param_groups[0]

    with pytest.raises(ValueError, match=r"^A parameter group has no 'pace': it uses torch's names\. Write 'lr'\.$"):
        group(Triple(0.5), pace=0.1)

    class Own(Optimizer):
        @staticmethod
        def rule(w: Any, g: Any, *, pace: Any = 1.0, decay: Any = 0.5) -> Any:
            return w - pace * decay * g

    assert group(Own(), pace=0.1, decay=0.2)["decay"] == 0.2


def test_a_class_with_a_constructor_of_its_own_may_leave_the_base_class_out() -> None:
    class Late(Triple):
        def __init__(self, pace: float) -> None:
            self.pace = pace

    late = Late(0.3)
    assert late.pace == 0.3
    with pytest.raises(AttributeError, match=r"^Late has been given no needed\.$"):
        late.group()
    late.needed = 0.5
    assert late.group() == Triple(0.5, 0.3).group()


def test_pickles_of_earlier_versions_load() -> None:
    """They hold every number as a plain attribute, and lack options that came later."""
    for made in (Adam(learning_rate=0.5, gradient_clip_norm=2.0), GradientDescentMomentum(0.1, 0.9, nesterov=True)):
        vars(made).update(_hyperparameters={})
        for later in ("lr_scale", "weight_average", "master"):
            del vars(made)[later]
        again = pickle.loads(pickle.dumps(made))
        assert again.group() == made.group()
        assert again.group()["rate_scale"] == 1.0
        assert again.learning_rate == made.learning_rate


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("neon.optimizers.assignment", "Match"), ("neon.optimizers.sites", "Site"),
        ("neon.torch.sharding", "Partition"), ("neon.torch.averages", "Aside"),
        ("neon.torch.optimizer", "AttachedOptimizer"),
    ],
)  # fmt: skip
def test_pickles_of_earlier_versions_find_their_classes(module: str, name: str) -> None:
    found = pickle.loads(f"c{module}\n{name}\n.".encode())
    assert found.__name__ == name


@pytest.mark.parametrize("rule", [Optimizer, *dict.fromkeys(RULES.values())])
def test_every_option_has_its_type_in_the_signature(rule: type[Optimizer]) -> None:
    types = {name: parameter.annotation for name, parameter in inspect.signature(rule).parameters.items()}
    known = {
        "wdecay": "float",
        "maximize": "bool",
        "seed": "int",
        "master": "str | None",
        "schedule": "Schedule | None",
    }
    assert {name: found for name, found in types.items() if name in known and name in DESCRIBED} == {
        name: found for name, found in known.items() if name in types
    }


def test_the_guide_lists_every_number() -> None:
    """After a change on purpose, run it with NEON_STORE_DOCS=1 and read the difference."""
    path = Path(__file__).parent.parent / "docs" / "guide.md"
    rows = ["| rule | argument | default | range | in groups |", "| --- | --- | --- | --- | --- |"]
    rows += number_rows(RULES.values())
    page = path.read_text(encoding="utf-8")
    head, tail = page.split("<!-- numbers of the rules -->\n")[0], page.split("<!-- end of the numbers -->\n")[1]
    whole = "\n".join([f"{head}<!-- numbers of the rules -->", *rows, f"<!-- end of the numbers -->\n{tail}"])
    if os.environ.get("NEON_STORE_DOCS"):
        path.write_text(whole, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == whole
