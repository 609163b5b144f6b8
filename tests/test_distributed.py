"""Distributed training on 2, 3 and 4 processes: what one process gives, whatever PyTorch spreads the model by."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import constructors
import pytest
import torch
from filelock import FileLock

if not hasattr(os, "fork") or not torch.distributed.is_available():
    pytest.skip("ranks are forked, and talk through gloo", allow_module_level=True)

from distributed_run import kept, said
from distributed_table import (
    ACROSS,
    AGREED,
    ALONE,
    BLOCKS,
    BLOCKS_SAVED,
    CURVES,
    EQUAL,
    GIVEN,
    LOW,
    MATRICES,
    POISONED,
    POISONED_PARTS,
    RULES,
    SAVED,
    SCALED,
    SEEN,
    WAITING,
    WAYS,
    name_of,
    worlds,
)

MANY = (2, 4)
Case = tuple[Any, ...]


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the ranks kept, of one launch for all tests and all of pytest's processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    found = shared / "distributed"
    with FileLock(shared / "distributed.lock"):
        if not found.exists():
            found.mkdir()
            program = Path(__file__).with_name("distributed_run.py")
            every = ["--all"] if request.config.getoption("all") else []
            subprocess.run([sys.executable, program, *every], cwd=found, check=True)
    return found


def worlds_of(cases: list[Case], *, alone: bool = False) -> Any:
    """Each case with each number of ranks; by how many it is not run unless all are, it waits."""
    params = [
        pytest.param(
            case, world, marks=pytest.mark.crossing if (case, world) in WAITING else (), id=f"{name_of(case)}-{world}"
        )
        for case in cases
        for world in worlds(case)
        if alone or world > 1
    ]
    return pytest.mark.parametrize(("case", "world"), params)


def results(folder: Path, case: Case, world: int) -> list[dict[str, Any]]:
    """What a case gave each rank; a rank that failed fails the test, with its traceback."""
    found = []
    for rank in range(world):
        path, last_words = folder / kept(case, world, rank), folder / said(world, rank)
        if path.exists():
            found.append(torch.load(path))
        else:
            words = last_words.read_text() if last_words.exists() else "Ranks of a larger world ended early."
            found.append({"error": f"nothing was kept.\n{words}"})
    errors = [f"Rank {rank} of {world}: {one['error']}" for rank, one in enumerate(found) if one and "error" in one]
    if errors:
        pytest.fail("\n".join(errors), pytrace=False)
    return found


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@worlds_of(AGREED)
def test_all_ranks_end_with_the_same_bits(folder: Path, case: Case, world: int) -> None:
    first, *others = results(folder, case, world)
    for other in others:
        assert_same(other, first)


@worlds_of([*CURVES, *SCALED, *SEEN])
def test_training_is_that_of_one_process(folder: Path, case: Case, world: int) -> None:
    """In float64: the order in which gradients are summed is all that differs, for torch's own rule too."""
    [alone] = results(folder, case, 1)
    assert_close(results(folder, case, world)[0], alone)


def assert_close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-15)


@worlds_of(EQUAL, alone=True)
def test_every_one_of_many_equal_layers_is_trained(folder: Path, case: Case, world: int) -> None:
    """By every rule, given a model, a mapping, named parameters or torch's arguments: with one process's weights."""
    [alone] = results(folder, ALONE, 1)
    found = results(folder, case, world)[0]
    start = {name: value for name, value in alone.items() if name.startswith("start")}
    every = {*constructors.RULES} - constructors.OF_MATRICES - {"SOAP"}
    drop_ins = {*constructors.DROP_INS} - constructors.OF_MATRICES
    assert len(alone) == 1 + 16 + ((len(every) + 1) * 3 + len(drop_ins)) * 16
    rules = {name.split(",")[0] for name in found}
    assert rules >= every
    assert_close(found, {name: alone[name] for name in found})
    for name, value in found.items():
        if name != "losses" and name not in start:
            assert not torch.equal(value, start[f"start: {name.split(': ')[1]}"]), name


@pytest.mark.parametrize("case", LOW, ids=name_of)
def test_replicas_give_the_bits_of_one_process_that_sums_in_their_order(folder: Path, case: Case) -> None:
    """torch's own rule does, of float32 and of bfloat16; of four ranks, gloo alone knows the order."""
    [alone] = results(folder, case, 1)
    assert_same(results(folder, case, 2)[0], alone)


@worlds_of([*GIVEN, *BLOCKS])
def test_the_same_gradients_give_the_same_bits(folder: Path, case: Case, world: int) -> None:
    [alone] = results(folder, case, 1)
    found = results(folder, case, world)[0]
    # Sums over tensors are taken in float64 of what each rank has. Of more elements the last bits of sums, and of
    # numbers of groups, may differ between worlds; weights and states see them in float32: there it hardly ever shows.
    assert_same(found, alone)


@worlds_of([*MATRICES])
def test_matrices_of_many_ranks_are_those_of_one(folder: Path, case: Case, world: int) -> None:
    """Over 50 steps too, with gradients of low rank; wherever parts lie, and whoever owns a matrix."""
    [alone] = results(folder, case, 1)
    found = results(folder, case, world)[0]
    assert_same(found, alone)
    assert found.get("strays", []) == []


def test_what_matrices_of_many_ranks_cannot_have_is_refused_by_all(folder: Path) -> None:
    for found in results(folder, ("refused_matrices",), 2):
        for name, words in {
            "flat": "parts of flat ones, which are no matrices: Orthogonal works on whole ones. Use fully_shard",
            "placements": "the whole matrix is known of parameters that are cut by Shard alone",
            "unlike": "Parameter 'w' has a gradient on some processes and none on others",
            "elementwise": "no rule here calls functions of matrices",
            "partitioned": "share_matrices cannot be had with partitioned=True",
            "in backward": "share_matrices cannot be had with in_backward=True",
        }.items():
            assert words in found[name]


@worlds_of(ACROSS)
def test_across_rows_all_but_random_rounding_is_the_same(folder: Path, case: Case, world: int) -> None:
    [alone] = results(folder, case, 1)
    found = results(folder, case, world)[0]
    rounded = [name for name in alone if name.startswith("last_weight")]
    for name in rounded:
        torch.testing.assert_close(found.pop(name), alone.pop(name), rtol=2**-5, atol=2**-8)
    assert rounded
    assert_same(found, alone)


@pytest.mark.parametrize("world", MANY)
def test_shards_across_rows_are_rounded_apart(folder: Path, world: int) -> None:
    columns = results(folder, ("alike",), world)[0]["columns"].chunk(world, dim=1)
    assert len({tuple(part.flatten().tolist()) for part in columns}) == world


@pytest.mark.parametrize("world", [1, *MANY])
@pytest.mark.parametrize("name", POISONED)
def test_a_gradient_that_is_not_finite_on_one_rank_is_skipped_by_all_and_named(
    folder: Path, name: str, world: int
) -> None:
    for found in results(folder, ("same_gradients", "rows", "mapping", name), world):
        assert found[f"skipped for {name}"] == 1
        assert found["gain step"] == 3


def test_flat_parameters_have_no_norms_of_tensors_and_no_sums_unless_it_is_said(folder: Path) -> None:
    for found in results(folder, ("flat_refused",), 2):
        assert re.search(r"no process knows .* LAMB would be that of a part.* Use fully_shard", found["LAMB"])
        assert re.search(r"d_numerator, k of Prodigy would be that .* Give partitioned=True", found["Prodigy"])
        assert found["Adam"] == "nothing"


@worlds_of(POISONED_PARTS, alone=True)
def test_partitioned_all_skip_what_one_rank_finds_not_finite(folder: Path, case: Case, world: int) -> None:
    """The gradients are given: weights and numbers of groups are those of one process, also where no parameter is."""
    [alone] = results(folder, case, 1)
    for found in results(folder, case, world):
        assert (found["skipped"], found["named"]) == (1, 1)
        assert_same(found, alone)


def test_partitioned_sums_over_all_parameters_are_refused_by_name_unless_it_is_said(folder: Path) -> None:
    """What needs none, norms of tensors, steps."""
    for found in results(folder, ("zero_refused",), 2):
        assert found.pop("LAMB") == "nothing"
        for name, named in {
            "Prodigy": "d, d_max, d_numerator, k of Prodigy", "clipped": "gradient_clip_norm of LAMB",
            "drop-in": "gradient_clip_norm of AdamRule", "clipped later": "gradient_clip_norm of LAMB",
        }.items():  # fmt: skip
            assert f"part of the parameters: {named} would be that of this part alone" in found[name]
            assert "partitioned=True: optimizer_class=lambda" in found[name]


@pytest.mark.parametrize("world", [1, *MANY])
@pytest.mark.parametrize("way", ["data parallel", "sharded"])
def test_a_scaler_leaves_out_what_overflows_on_one_rank(folder: Path, way: str, world: int) -> None:
    for found in results(folder, ("scaled", way, "momentum"), world):
        assert math.isinf(found["losses"][1])
        assert found["gain step"] == 3
        assert found["scale"] == 2.0**16 / 2 * 2


@worlds_of(SAVED, alone=True)
def test_a_run_goes_on_from_what_other_numbers_of_ranks_have_saved(folder: Path, case: Case, world: int) -> None:
    """Bit for bit with as many ranks as before; and the step by which torch makes states changes no parameter."""
    found = results(folder, case, world)[0]
    uninterrupted = found.pop("uninterrupted")
    assert set(found) == {f"from {saved_by}" for saved_by in worlds(case) if saved_by >= world}
    for saved_by, resumed in found.items():
        assert resumed.pop("dummy step")
        assert resumed.pop("strays") == []
        # DistributedDataParallel itself sums in another order in its first step than later.
        check = assert_same if saved_by == f"from {world}" and "data parallel" not in case else assert_close
        check(resumed, uninterrupted)


@worlds_of([*CURVES[: len(WAYS) * len(RULES)], *GIVEN, *ACROSS, *BLOCKS])
def test_states_lie_where_their_parameters_lie(folder: Path, case: Case, world: int) -> None:
    for found in results(folder, case, world):
        assert found["strays"] == []


@worlds_of(BLOCKS_SAVED, alone=True)
def test_low_precision_goes_on_with_the_same_bits_on_other_numbers_of_ranks(
    folder: Path, case: Case, world: int
) -> None:
    found = results(folder, case, world)[0]
    [alone] = results(folder, case, 1)
    uninterrupted = found.pop("uninterrupted")
    assert_same(uninterrupted, alone["uninterrupted"])
    assert set(found) == {f"from {saved_by}" for saved_by in worlds(case) if saved_by >= world}
    for resumed in found.values():
        assert resumed.pop("dummy step")
        assert resumed.pop("strays") == []
        assert_same(resumed, uninterrupted)


@pytest.mark.parametrize("world", MANY)
def test_states_are_in_blocks_where_shards_do_not_cut_them(folder: Path, world: int) -> None:
    found = results(folder, ("low_states", "sharded", "int8, split"), world)[0]
    for name in ("ten rows", "six rows"):
        assert found[f"layers.{name}.weight exp_avg"].dtype == torch.int8
        assert found[f"layers.{name}.weight exp_avg_sq"].dtype == torch.uint8
    assert found["layers.ten rows.weight low_bits"].any()
    assert results(folder, ("cut", "columns"), world)[0]["p exp_avg"].dtype == torch.float32
    for refused in results(folder, ("cut_blocks",), world):
        assert "in blocks that the parameter's placements would cut" in refused["loaded"]
        assert "holds whole numbers alone" in refused["copied"]


@pytest.mark.parametrize("world", [1, *MANY])
@pytest.mark.parametrize("way", ["data parallel", "sharded", "hybrid"])
@pytest.mark.parametrize("form", ["averaged", "schedule-free"])
def test_models_compute_with_views_for_a_while(folder: Path, form: str, way: str, world: int) -> None:
    for found in results(folder, ("low_states", way, form), world):
        before, between, after = found["evaluated"].tolist()
        assert before == after != between
        assert found["switched"].tolist() == [before, between, after]
        resumed = found["saved in between"]
        assert_same(resumed, {name: found[name] for name in resumed})


@pytest.mark.parametrize("world", MANY)
def test_a_rank_that_fails_is_reported_by_itself_and_by_those_that_wait(folder: Path, world: int) -> None:
    with pytest.raises(pytest.fail.Exception) as caught:
        results(folder, ("failing",), world)
    assert "RuntimeError: no such luck" in str(caught.value)
    assert f"Rank 0 of {world}" in str(caught.value)
