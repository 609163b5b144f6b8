"""Checkpoints of earlier versions load, with the states that they hold, and training goes on from there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from kept_checkpoints import STEPS, Net, cases, fit, give, kept, layer_model

pytestmark = pytest.mark.usefixtures("one_thread")

KEPT = dict(kept())
# How far a step may end from where it ended in the version that saved it: one number of the format.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}


def tensors(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from tensors(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def close(model: torch.nn.Module, saved: dict[str, torch.Tensor]) -> None:
    for name, value in model.state_dict().items():
        tolerance = TOLERANCE[value.dtype]
        torch.testing.assert_close(value, saved[name], rtol=tolerance, atol=tolerance / 16)


def test_every_case_of_the_first_version_is_kept() -> None:
    assert len(KEPT["0.1.0"]) == 179


@pytest.mark.parametrize(("version", "case"), [(v, c) for v, saved in KEPT.items() for c in saved if c != "layers"])
def test_a_checkpoint_loads_and_training_goes_on(version: str, case: str) -> None:
    dtype, made = cases()[case]
    saved = KEPT[version][case]
    model = Net(dtype)
    model.load_state_dict(saved["model"])
    optimizer = made(model)
    optimizer.load_state_dict(saved["optimizer"])
    loaded = dict(tensors(optimizer.state_dict()["state"]))
    for name, value in tensors(saved["optimizer"]["state"]):
        assert loaded[name].dtype == value.dtype
        assert torch.equal(loaded[name].view(-1).view(torch.uint8), value.view(-1).view(torch.uint8)), name
    for group, before in zip(optimizer.param_groups, saved["optimizer"]["param_groups"], strict=True):
        assert {key: group[key] for key in before if key != "params"} == {
            k: v for k, v in before.items() if k != "params"
        }
    give(model, STEPS)
    optimizer.step()
    close(model, saved["next"])


@pytest.mark.parametrize("version", KEPT)
def test_groups_have_no_values_that_distributed_checkpoints_of_before_lack(version: str) -> None:
    """torch.distributed.checkpoint asks the file for every value that a group has, and finds none that came later."""
    made = cases()
    for case, saved in KEPT[version].items():
        if case != "layers":
            dtype, optimizer = made[case]
            groups = optimizer(Net(dtype)).state_dict()["param_groups"]
            for group, before in zip(groups, saved["optimizer"]["param_groups"], strict=True):
                assert set(group) <= set(before), case


@pytest.mark.parametrize("version", KEPT)
def test_a_parameter_file_loads_and_training_goes_on(version: str, tmp_path: Path) -> None:
    saved = KEPT[version]["layers"]
    path = tmp_path / "model"
    path.write_bytes(bytes(saved["file"].tolist()))
    model = layer_model()
    model(torch.zeros(4, 4))
    model.load_params(path)
    fit(model, 1)
    close(model, saved["next"])
