"""Imports go one way, from the commands down to the engine, and no files import each other in a circle."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import neon

ROOT = Path(neon.__file__).parents[1]
# From the bottom up; a room may import those above it in this list, and itself. What stands in one line is one floor.
FLOORS = [
    ["messages", "whole_files", "log", "not_built", "collections_held"],
    ["arguments", "old_paths"],
    ["backends"],
    ["engine"],
    ["assignment"],
    ["stepping"],
    ["statistics"],
    ["audit"],
    ["attached"],
    ["optimizers"],
    ["torch"],
    ["layers", "initializers", "transforms", "data", "callbacks", "models"],
    ["util"],
    ["commands"],
    ["compare", "cli"],
]
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# Rooms within the commands, in the same way: what they share stands at the bottom.
COMMANDS = [["shared"], ["compare", "bench", "report", "show"], ["memory"]]
# Names that occur twice: paths of the documented framework, and the class of a pickle that users may have.
REPEATED = {
    "__init__.py",
    "activation.py",  # neon.transforms.activation; layers of whole models that were pickled
    "cost.py",  # neon.transforms.cost; the same
    "gan.py",  # neon.models.gan; neon.transforms.gan, the same
}


class Import(NamedTuple):
    file: str
    line: int
    where: str  # "" at the top of a module, else the function, or TYPE_CHECKING
    target: str  # the file that is imported


def files() -> list[str]:
    """Every file of neon and of the benchmarks, from the root."""
    paths = [*(ROOT / "neon").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def room_of(file: str) -> str:
    """The room of a file of neon; "" for the package's own file and for benchmarks."""
    parts = file.removesuffix("/__init__.py").removesuffix(".py").split("/")
    return parts[1] if parts[0] == "neon" and len(parts) > 1 else ""


def file_of(module: str, folder: str) -> str | None:
    """The file of a module of neon, or of a benchmark, which others of that folder import by its bare name."""
    path = module.replace(".", "/")
    if folder == "benchmarks" and module.partition(".")[0] != "neon":
        path = f"benchmarks/{path}"
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if (ROOT / file).is_file()), None)


def imported_files(node: ast.AST, file: str) -> Iterator[str]:
    """The files that an import statement names. Packages above them are imported too, but hold nothing for them."""
    folder = file.split("/")[0]
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = file.split("/")[:-1]
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
        inside = [f"{base}.{alias.name}" for alias in node.names]  # `from neon import x` may name a file
        modules = [module if file_of(module, folder) else base for module in inside]
    else:
        return
    yield from dict.fromkeys(filter(None, (file_of(module, folder) for module in modules)))


def walk(node: ast.AST, file: str, where: str = "") -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = where
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside = f"{where}.{child.name}".strip(".")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inside = "TYPE_CHECKING"
        for target in imported_files(child, file):
            yield Import(file, child.lineno, inside, target)  # type: ignore[attr-defined]
        yield from walk(child, file, inside)


def all_imports() -> list[Import]:
    return [found for file in files() for found in walk(ast.parse((ROOT / file).read_text(encoding="utf-8")), file)]


def goes_up(item: Import) -> bool:
    above, below = room_of(item.file), room_of(item.target)
    return bool(above and below) and HEIGHT[below] > HEIGHT[above]


def in_circles(uses: Mapping[str, set[str]]) -> set[str]:
    """Those from which imports lead back to themselves."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = {start}
        while waiting:
            waiting = {target for name in waiting for target in uses.get(name, ())} - found
            found |= waiting
        return found

    return {name for name in uses if name in reached(name)}


def test_every_room_has_its_floor() -> None:
    assert {room_of(file) for file in files()} - {""} == set(HEIGHT)


def test_imports_go_down_or_sideways() -> None:
    found = all_imports()
    assert len(found) > 500
    upward = [item for item in found if goes_up(item)]
    said = "\n".join(f"{i.file}:{i.line} ({i.where or 'top'}) imports {i.target}" for i in upward)
    assert not upward, said


def test_what_commands_share_stands_on_none_of_them() -> None:
    height = {name: number for number, names in enumerate(COMMANDS) for name in names}

    def part_of(file: str) -> str:
        part = file.split("/")[2].removesuffix(".py")
        return part if part in height else "shared"

    found = [item for item in all_imports() if room_of(item.file) == room_of(item.target) == "commands"]
    parts = {(part_of(item.file), part_of(item.target)) for item in found}
    assert {
        ("compare", "shared"),
        ("bench", "shared"),
        ("report", "shared"),
        ("show", "shared"),
        ("memory", "bench"),
    } <= parts
    assert [(a, b) for a, b in parts if a != b and height[b] >= height[a]] == []


def test_no_files_import_each_other_in_a_circle() -> None:
    uses: dict[str, set[str]] = {file: set() for file in files()}
    for item in all_imports():
        uses[item.file].add(item.target)
    found = in_circles(uses)
    circles = [f"{file} -> {', '.join(sorted(uses[file] & found))}" for file in sorted(found)]
    assert not found, "\n".join(circles)


def test_floors_of_several_rooms_have_no_circles() -> None:
    """Rooms on one floor may use each other, but not in a circle."""
    uses: dict[str, set[str]] = {room: set() for room in HEIGHT}
    for item in all_imports():
        room, used = room_of(item.file), room_of(item.target)
        if room != used and HEIGHT.get(room) == HEIGHT.get(used, -1):
            uses[room].add(used)
    assert in_circles(uses) == set()


def test_a_file_name_occurs_once() -> None:
    """The name says what is inside, and leads to one file."""
    names = Counter(file.rpartition("/")[2] for file in files() if file.startswith("neon/"))
    assert {name for name, count in names.items() if count > 1} == REPEATED


def test_the_bottom_imports_nothing_of_neon() -> None:
    lowest = {f"neon/{room}.py" for room in FLOORS[0]} | {"neon/__init__.py"}
    assert [item for item in all_imports() if item.file in lowest] == []


def test_only_the_top_knows_the_extras() -> None:
    """What only the commands need is not imported by a training loop."""
    for file in files():
        if not file.startswith("neon/") or room_of(file) in ("commands", "cli"):
            continue
        for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"matplotlib", "sklearn", "typer"}, file


@pytest.mark.parametrize(
    ("file", "source", "where", "target"),
    [
        ("neon/engine/plan.py", "from neon.optimizers.adam import Adam", "", "neon/optimizers/adam.py"),
        ("neon/engine/plan.py", "from neon.optimizers import Adam", "", "neon/optimizers/__init__.py"),
        ("neon/engine/plan.py", "from neon.optimizers import adam", "", "neon/optimizers/adam.py"),
        ("neon/engine/plan.py", "def f():\n    import neon.models", "f", "neon/models/__init__.py"),
        ("neon/engine/plan.py", "class A:\n    def f(self):\n        from neon import cli", "A.f", "neon/cli.py"),
        ("neon/engine/plan.py", "from ..torch import x", "", "neon/torch/__init__.py"),
        ("neon/engine/backends/numba.py", "from ...layers.dense import Linear", "", "neon/layers/dense.py"),
        (
            "neon/optimizers/adam.py",
            "if TYPE_CHECKING:\n    from neon.torch import x",
            "TYPE_CHECKING",
            "neon/torch/__init__.py",
        ),
        (
            "neon/arguments.py",
            "try:\n    import neon.backends\nexcept ImportError:\n    pass",
            "",
            "neon/backends/__init__.py",
        ),
    ],
)
def test_the_walk_sees_every_way_to_write_an_import(file: str, source: str, where: str, target: str) -> None:
    [item] = walk(ast.parse(source), file)
    assert (item.where, item.target) == (where, target)
    assert goes_up(item)


def test_a_benchmark_is_found_by_its_bare_name() -> None:
    assert [item.target for item in walk(ast.parse("from gpu_run import Case"), "benchmarks/gpu.py")] == [
        "benchmarks/gpu_run.py"
    ]


def test_circles_are_found() -> None:
    assert in_circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}) == {"b", "c", "d"}
