"""Callgrind from within: what a Python program says to it, how a program is run under it, what its files say.

Instrumentation begins and collecting goes on and off by client requests: numbers in memory, and a sequence of
instructions that means something to valgrind alone (its manual, "The Client Request mechanism"; x86-64).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Caches of a size that many processors have, whatever this one's are: 32 kB each for instructions and data, and as the
# last level one megabyte, which on today's processors is a core's own second level.
OPTIONS = (
    "--tool=callgrind", "--instr-atstart=no", "--collect-atstart=no",
    "--cache-sim=yes", "--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,16,64",
)  # fmt: skip
# valgrind knows AVX2 and nothing beyond it: what numba compiles for. With its fast bins the C library would now and
# then tidy up in a step what a backward pass has freed.
ENVIRONMENT = {
    "NUMBA_CPU_NAME": "haswell",
    "NUMBA_CPU_FEATURES": "",
    "PYTHONHASHSEED": "0",
    "GLIBC_TUNABLES": "glibc.malloc.mxfast=0",
}

_BASE = int.from_bytes(b"CT\0\0", "big")
_ZERO, _TOGGLE, _DUMP_AT, _START = (_BASE + number for number in (1, 2, 3, 4))
# mov rax, rdi; xor edx, edx; what valgrind knows: rdi rotated four times, by 128 bits in all, and rbx exchanged with
# itself; mov rax, rdx; ret
_CODE = bytes.fromhex("4889f8 31d2 48c1c703 48c1c70d 48c1c73d 48c1c733 4887db 4889d0 c3")


def missing() -> str:
    """Why nothing can be counted here; empty where it can."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return f"instructions are counted on x86-64 alone, and this is {platform.machine()}"
    if shutil.which("valgrind") is None:
        return "there is no valgrind (apt install valgrind)"
    return ""


def command(folder: Path) -> list[str]:
    """What stands before a program's command line; its files go into the folder."""
    return ["valgrind", *OPTIONS, f"--callgrind-out-file={folder / 'out'}", f"--log-file={folder / 'log'}"]


class Requests:
    """What this process asks callgrind for; without it nothing happens."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        self._page.write(_CODE)
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._page))
        self._ask = ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_void_p)(address)
        self._zero, self._toggle, self._start = ((ctypes.c_uint64 * 6)(kind) for kind in (_ZERO, _TOGGLE, _START))

    def start(self) -> None:
        """Simulate caches from now on, and look at calls."""
        self._ask(self._start)

    def counted(self, function: Callable[[], object], label: str) -> None:
        """Call a function, and write a file with what it took under this label."""
        ask, toggle = self._ask, self._toggle
        ask(self._zero)
        ask(toggle)
        function()
        ask(toggle)
        text = ctypes.create_string_buffer(label.encode())
        ask((ctypes.c_uint64 * 6)(_DUMP_AT, ctypes.addressof(text)))


@dataclass(frozen=True)
class Counts:
    """Instructions, and misses of each level: of the first for instructions and for data, of the last for both."""

    instructions: int = 0
    code_misses: int = 0
    data_misses: int = 0
    last_misses: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self.values, other.values, strict=True)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(a - b for a, b in zip(self.values, other.values, strict=True)))

    @property
    def values(self) -> tuple[int, int, int, int]:
        return self.instructions, self.code_misses, self.data_misses, self.last_misses

    @staticmethod
    def of(events: Counter[str]) -> Counts:
        data, last = events["D1mr"] + events["D1mw"], events["ILmr"] + events["DLmr"] + events["DLmw"]
        return Counts(events["Ir"], events["I1mr"], data, last)


@dataclass
class Profile:
    """What one file says: for each function, by file name of its object and by name, what it took itself."""

    label: str = ""
    functions: dict[tuple[str, str], Counts] = field(default_factory=dict)


_NAME = re.compile(r"(c?)(ob|fn)=\((\d+)\)(?: (.*))?")
_RECURSION = re.compile(r"'\d+$")


def profiles(folder: Path) -> Iterator[Profile]:
    """The files of a program that has ended, those that `counted` has asked for."""
    for path in sorted(folder.glob("out.*"), key=lambda path: int(path.suffix[1:])):
        profile = _read(path)
        if profile.label:
            yield profile


def _read(path: Path) -> Profile:
    profile, events = Profile(), []
    known: dict[tuple[str, str], str] = {}
    place = {"ob": "", "fn": ""}
    own: dict[tuple[str, str], Counter[str]] = {}
    of_a_call = False
    for line in path.read_text(errors="replace").splitlines():
        if named := _NAME.fullmatch(line):
            called, kind, number, name = named.groups()
            if name is not None:  # a name is written once, and afterwards stands for its number
                known[kind, number] = name
            if not called:
                place[kind] = known[kind, number]
        elif line.startswith("events:"):
            events = line.split()[1:]
        elif line.startswith("desc: Trigger: Client Request: "):
            profile.label = line.rpartition(": ")[2]
        elif line.startswith("calls="):
            of_a_call = True
        elif line[:1] in "+-*0123456789" and line:
            if not of_a_call:  # what a call took in all, its own calls included, is told where it was spent
                function = Path(place["ob"]).name, _RECURSION.sub("", place["fn"])
                costs = dict(zip(events, map(int, line.split()[1:]), strict=False))
                own.setdefault(function, Counter()).update(costs)
            of_a_call = False
    profile.functions = {function: Counts.of(found) for function, found in own.items()}
    return profile
