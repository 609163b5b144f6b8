"""The cases of the distributed tests: a function of distributed_cases, _saving, _low or _equal, and its arguments.

Apart from the functions, whose imports no other test should meet.
"""

from __future__ import annotations

from typing import Any

from pairs import picked

WAYS = ("data parallel", "sharded", "hybrid", "tensor parallel", "grid")
RULES = ("adam", "momentum", "mapping", "own", "drop-in")
# Row by row a part is one range of the whole; across rows it is not.
ROWS = ("copies", "rows", "copies of rows", "rows of rows", "unreduced gradients", "gathered gradients")
ACROSS_ROWS = ("columns", "rows and columns")
# Sums over all tensors, and beside them norms of tensors in one optimizer; these alone are as in the rule "own".
SUMS = ("prodigy", "sums")
POISONED = ("first.bias", "gain")

POISONED_PARTS = [("zero_poisoned", rule) for rule in ("adam", "sums", "counted")]
CURVES: list[tuple[Any, ...]] = [
    *(("loss_curve", way, rule) for way in WAYS for rule in RULES),
    ("loss_curve", "data parallel", "torch"),  # the yardstick
    ("loss_curve", "sharded", "torch"),
    *(("in_backward", previous) for previous in (None, 0.5)),
    *(("flat", rule) for rule in ("adam", "momentum", "prodigy")),
    *(("zero", rule) for rule in (*RULES, "sums", "free")),
    *POISONED_PARTS,
    ("loss_curve", "sharded", "prodigy"),
    ("loss_curve", "grid", "sums"),
    ("by_class",),
    ("from_rank_zero",),
    ("documented",),
    ("loss_curve", "sharded", "adafactor"),
    ("loss_curve", "sharded", "transforms"),
    ("loss_curve", "grid", "orthogonal"),
    ("in_backward", None, "orthogonal"),
    ("zero", "orthogonal"),
]
SEEN = [
    *(("seen", way, rule) for way in WAYS for rule in ("mapping", "adam")),
    ("seen", "sharded", "sums"),
    ("seen", "sharded", "orthogonal"),
    ("seen_in_backward", "sharded"),
    ("seen_without_gradients",),
    ("seen_by_one",),
    ("seen_sharing",),
    ("seen_by_zero",),
]
SCALED = [("scaled", way, rule) for way in ("data parallel", "sharded") for rule in ("momentum", "torch")]
SCALED += [("scaled", "sharded", "sums"), ("scaled", "sharded", "orthogonal")]
LOW = [("low_precision", rule, dtype) for rule in ("mapping", "own", "torch") for dtype in ("float32", "bfloat16")]
LOW.append(("low_precision", "prodigy", "bfloat16"))
GIVEN = [
    *(("same_gradients", layout, rule, None) for layout in ROWS for rule in ("mapping", "own")),
    *(("same_gradients", "rows", "mapping", name) for name in POISONED),
    *(("same_gradients", layout, rule, None) for layout in (*ROWS, "several meshes") for rule in SUMS),
    *(("same_gradients", layout, "adafactor", None) for layout in ("copies", "rows", "copies of rows", "rows of rows")),
    ("same_gradients", "rows and columns", "prodigy", None),
    ("same_gradients", "rows", "lamb", None),
    ("same_gradients", "rows", "transforms", None),
    ("same_gradients", "rows", "sums", "first.bias"),
]
ACROSS = [
    *(("same_gradients", layout, rule, None) for layout in ACROSS_ROWS for rule in ("mapping", "own", "adafactor")),
    ("same_gradients", "columns", "sums", None),
]
SAVED = [
    ("checkpoint", "sharded", "mapping", "sharded"),
    ("checkpoint", "sharded", "mapping", "flat"),
    ("checkpoint", "sharded", "mapping", "full"),
    ("checkpoint", "sharded", "drop-in", "sharded"),
    *(("checkpoint", "sharded", "adafactor", form) for form in ("sharded", "flat", "full")),
    ("checkpoint", "grid", "own", "sharded"),
    *(("checkpoint", "sharded", "transforms", form) for form in ("sharded", "flat", "full")),
    ("checkpoint", "sharded", "sums", "flat"),
    ("checkpoint", "sharded", "sums", "full"),
    ("checkpoint", "hybrid", "prodigy", "sharded"),
    ("checkpoint", "data parallel", "mapping", "sharded"),
    ("checkpoint", "sharded", "orthogonal", "sharded"),
]
FORMATS = ("int8", "bfloat16", "int8, split", "float32, split", "averaged", "schedule-free")
BLOCKS = [
    *(("low_states", way, form) for way in ("data parallel", "sharded", "hybrid") for form in FORMATS),
    ("low_states", "sharded", "int8, lamb"),
    ("low_states", "sharded", "int8, transforms"),
    *(("every_rule", form) for form in FORMATS[:2]),
    *(("cut", name) for name in ("odd rows", "columns", "one row")),
]
BLOCKS_SAVED = [
    ("low_checkpoint", "sharded", "int8, split", "sharded"),
    ("low_checkpoint", "sharded", "int8", "flat"),
    ("low_checkpoint", "sharded", "int8, split", "full"),
    ("low_checkpoint", "sharded", "bfloat16", "sharded"),
    ("low_checkpoint", "sharded", "averaged", "full"),
    ("low_checkpoint", "sharded", "int8, lamb", "sharded"),
    ("low_checkpoint", "sharded", "schedule-free", "sharded"),
    ("low_checkpoint", "hybrid", "int8", "sharded"),
    ("low_checkpoint", "data parallel", "int8, split", "sharded"),
]
# By how many ranks each is run, beside one.
MATRICES: dict[tuple[Any, ...], tuple[int, ...]] = {
    ("matrices", "plain", 50, 2, 64 << 20): (2, 3, 4),
    ("matrices", "clipped", 3, None, 64 << 20): (2, 4),
    ("matrices", "twice", 3, None, 20_000): (3, 4),
    ("matrices", "turned", 4, None, 64 << 20): (3, 4),
    ("matrices", "parts", 4, 2, 64 << 20): (2, 3),
    ("matrices", "normuon", 4, 2, 64 << 20): (2, 3),
    ("matrices", "soap", 4, 2, 64 << 20): (2, 3),
    ("matrices", "shampoo", 4, 2, 64 << 20): (2, 3),
    ("shared",): (2, 4),
}
# Every rule by each way, given the model by one of three ways to hand it over, which take turns.
EQUAL = [("equal_layers", way, turn) for way in ("sharded", "hybrid", "tensor parallel") for turn in range(3)]
ALONE = ("equal_layers", "alone", None)
AGREED = [
    *CURVES,
    *SEEN,
    *SCALED,
    *LOW,
    *GIVEN,
    *ACROSS,
    *SAVED,
    *BLOCKS,
    *BLOCKS_SAVED,
    *EQUAL,
    *MATRICES,
    ("missing",),
]  # of which every rank gives the same
REFUSED = [("zero_refused",), ("flat_refused",), ("refused_matrices",)]
CASES = [*AGREED, ALONE, ("alike",), ("cut_blocks",), *REFUSED, ("failing",)]
# On three ranks rows are cut unevenly, and two rows leave an empty shard.
BY_THREE: set[tuple[Any, ...]] = {
    ("same_gradients", "rows", "lamb", None),
    ("same_gradients", "gathered gradients", "prodigy", None),
    ("same_gradients", "several meshes", "sums", None),
    ("loss_curve", "sharded", "prodigy"),
    ("zero", "sums"),
    ("zero_poisoned", "sums"),
    ("zero_poisoned", "counted"),
    ("checkpoint", "sharded", "sums", "flat"),
}


# Cases that are run by 2 and by 4 ranks in turn: every two of layout, rule or format, and world meet.
TURNS = [
    [("loss_curve", way, rule) for way in WAYS for rule in RULES],
    [("same_gradients", layout, rule, None) for layout in ROWS for rule in ("mapping", "own")],
    [("same_gradients", layout, rule, None) for layout in (*ROWS, "several meshes") for rule in SUMS],
    [("low_states", way, form) for way in ("data parallel", "sharded", "hybrid") for form in FORMATS[:2]],
]
WAITING: set[tuple[Any, ...]] = set()
for turns in TURNS:
    rows = [(case, world) for case in turns for world in (2, 4)]  # by 2 where either will do
    chosen = picked([(*case[1:], world) for case, world in rows])
    WAITING |= {row for place, row in enumerate(rows) if place not in chosen}
for place, case in enumerate(EQUAL):
    WAITING |= {(case, world) for world in (1, 2, 4) if case[2] != (place // 3 + world // 2) % 3}
WAITING |= {(("loss_curve", "sharded", "prodigy"), world) for world in (2, 4)} | {(("scaled", "sharded", "sums"), 4)}
WAITING |= {(ALONE, world) for world in (2, 4)}  # what the others are compared with


def worlds(case: tuple[Any, ...]) -> tuple[int, ...]:
    """By how many ranks a case can be run."""
    if case in REFUSED:
        return (2,)
    if case == ("missing",):
        return (2, 3)
    if case[0] == "every_rule":
        return (1, 2)
    if case in MATRICES:
        return (1, *MATRICES[case])
    return (1, 2, 3, 4) if case in BY_THREE else (1, 2, 4)


def name_of(case: tuple[Any, ...]) -> str:
    """The case as one string."""
    return ", ".join(map(str, case))
