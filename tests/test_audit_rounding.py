"""What rounding loses, of rules that leave some elements where they are, and by rules on samples."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from neon.audit import AuditWarning
from neon.audit.seen import LAST
from neon.optimizers import AdamW, Cautious, Lion, Rprop
from neon.optimizers.functions import where


def train(rule: Any, steps: int = LAST, dtype: torch.dtype = torch.bfloat16) -> Any:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 8)).to(dtype)
    optimizer = rule.attach(model)
    for _ in range(steps):
        optimizer.zero_grad()
        outputs = model(torch.randn(2, 64, dtype=dtype))
        (outputs - 5 * torch.randn_like(outputs)).square().mean().backward()
        optimizer.step()
    return optimizer


def test_what_a_cautious_step_leaves_is_not_lost() -> None:
    optimizer = train(Cautious(Lion(learning_rate=1e-3)))
    assert max(optimizer._record.lost.values()) < 0.1  # a fifth of the elements stay
    with pytest.warns(AuditWarning, match="rounding: 0.weight, "):
        train(Cautious(AdamW(learning_rate=2e-5)))  # of AdamW without caution too


def test_a_rule_that_chooses_among_numbers_is_estimated() -> None:
    optimizer = train(Rprop(), 60)  # before anything is said
    assert optimizer.audit().kinds == ("rounding",)


@pytest.mark.parametrize(
    ("dtype", "remedy"), [(torch.bfloat16, {"master": "split"}), (torch.float16, {"stochastic_round": True})]
)
def test_the_remedy_takes_it_away(dtype: torch.dtype, remedy: Any) -> None:
    with pytest.warns(AuditWarning, match="Use stochastic_round=True, ") as caught:
        train(AdamW(learning_rate=1e-5), dtype=dtype)
    assert ("master='split'" in str(caught[0].message)) is (dtype == torch.bfloat16)  # which has none of float16
    assert "rounding" not in train(AdamW(learning_rate=1e-5, **remedy), dtype=dtype).audit().kinds


def test_a_choice_of_numbers_by_a_tensor() -> None:
    chosen = where(torch.tensor([True, False]), 0.5, 1.0)
    assert torch.equal(chosen, torch.tensor([0.5, 1.0]))
