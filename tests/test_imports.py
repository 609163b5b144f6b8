"""Imports go one way, from the commands down to the engine."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import neon

ROOT = Path(neon.__file__).parent
# From the bottom up; a room may import those above it in this list, and itself. What stands in one line is one floor.
FLOORS = [
    ["messages", "whole_files", "log", "not_built"],
    ["arguments", "old_paths"],
    ["backends"],
    ["engine"],
    ["assignment"],
    ["stepping"],
    ["attached"],
    ["optimizers"],
    ["torch"],
    ["layers", "initializers", "transforms", "data", "callbacks", "models"],
    ["util"],
    ["compare", "bench"],
    ["show", "terminal"],
    ["cli"],
]
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
# (file, function, room) of what may look up.
ALLOWED_UP: set[tuple[str, str, str]] = set()


class Import(NamedTuple):
    file: str
    line: int
    where: str  # "" at the top of a module, else the function, or TYPE_CHECKING
    room: str


def room_of(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def imported_rooms(node: ast.AST, file: str) -> Iterator[str]:
    """The rooms of neon that an import statement reaches; "" for the package alone."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            package = ["neon", *file.split("/")[:-1]]
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [base])])
        # `from neon import x` may name a room
        names = [f"neon.{alias.name}" for alias in node.names] if base == "neon" else [base]
    else:
        return
    for name in names:
        top, _, rest = name.partition(".")
        if top == "neon":
            room = rest.split(".")[0]
            yield room if room in HEIGHT or (ROOT / room).is_dir() or (ROOT / f"{room}.py").is_file() else ""


def walk(node: ast.AST, file: str, where: str = "") -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        inside = where
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inside = f"{where}.{child.name}".strip(".")
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            inside = "TYPE_CHECKING"
        for room in imported_rooms(child, file):
            yield Import(file, child.lineno, inside, room)  # type: ignore[attr-defined]
        yield from walk(child, file, inside)


def all_imports() -> list[Import]:
    found: list[Import] = []
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        found += walk(ast.parse(path.read_text(encoding="utf-8")), file)
    return found


def goes_up(item: Import) -> bool:
    return bool(item.room) and HEIGHT[item.room] > HEIGHT[room_of(item.file)]


def test_every_room_has_its_floor() -> None:
    rooms = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__pycache__", "py.typed"} == set(HEIGHT)


def test_imports_go_down_or_sideways() -> None:
    found = [item for item in all_imports() if item.file != "__init__.py"]
    assert len(found) > 100
    upward = {item for item in found if goes_up(item)}
    wrong = [item for item in upward if (item.file, item.where, item.room) not in ALLOWED_UP]
    assert not wrong, "\n".join(f"neon/{i.file}:{i.line} ({i.where or 'top'}) imports neon.{i.room}" for i in wrong)
    used = {(item.file, item.where, item.room) for item in upward}
    assert used == ALLOWED_UP


def test_floors_of_several_rooms_have_no_circles() -> None:
    """Rooms on one floor may use each other, but not in a circle."""
    uses: dict[str, set[str]] = {room: set() for room in HEIGHT}
    for item in all_imports():
        room = room_of(item.file)
        if item.room and room != item.room and HEIGHT.get(room) == HEIGHT[item.room]:
            uses[room].add(item.room)
    done: set[str] = set()
    while ready := {room for room in uses if room not in done and uses[room] <= done}:
        done |= ready
    assert done == set(uses), f"a circle among {sorted(set(uses) - done)}"


def test_the_bottom_imports_nothing_of_neon() -> None:
    lowest = {f"{room}.py" for room in FLOORS[0]} | {"__init__.py"}
    assert [item for item in all_imports() if item.file in lowest] == []


def test_only_the_top_knows_the_extras() -> None:
    """What only the commands need is not imported by a training loop."""
    for path in ROOT.rglob("*.py"):
        if room_of(path.relative_to(ROOT).as_posix()) in ("compare", "bench", "show", "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {n.split(".")[0] for n in names} & {"matplotlib", "sklearn", "typer"}, path


@pytest.mark.parametrize(
    ("file", "source", "expected"),
    [
        ("engine/plan.py", "from neon.optimizers.adam import Adam", ("", "optimizers")),
        ("engine/plan.py", "def f():\n    import neon.models", ("f", "models")),
        ("engine/plan.py", "class A:\n    def f(self):\n        from neon import cli", ("A.f", "cli")),
        ("engine/plan.py", "from ..torch import x", ("", "torch")),
        ("engine/backends/numba.py", "from ...layers.dense import Linear", ("", "layers")),
        ("optimizers/adam.py", "if TYPE_CHECKING:\n    from neon.torch import x", ("TYPE_CHECKING", "torch")),
        ("arguments.py", "try:\n    import neon.backends\nexcept ImportError:\n    pass", ("", "backends")),
    ],
)
def test_the_walk_sees_every_way_to_write_an_import(file: str, source: str, expected: tuple[str, str]) -> None:
    [item] = walk(ast.parse(source), file)
    assert (item.where, item.room) == expected
    assert goes_up(item)
