"""Machine code: numba compiles generated source to an object file, llvmlite links it into the process.

Once an object is there, numba is not needed: importing it and compiling the first function takes a third of a second.
The same object is linked whether it has just been compiled or comes from the cache, so the bits are the same.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np

import neon
from neon.collections_held import collections_held

_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_int64)
# What machine code is made by.
_HERE = Path(__file__)
_OWN = (_HERE.parents[1] / "backends" / "numba_intrinsics.py", _HERE.with_name("lean_numba.py"), _HERE)
_numbers = itertools.count()


class NotLinkedError(RuntimeError):
    """Machine code needs what is not in this process, or a numba that has changed."""


@dataclass(frozen=True)
class Code:
    """The C functions of a kernel's stages, which take the address of a context and do not hold the GIL."""

    addresses: tuple[int, ...]
    owner: Any  # the code is unloaded with it

    @property
    def functions(self) -> list[Callable[[int], None]]:
        """The stages as functions of Python."""
        return [_FUNCTION(address) for address in self.addresses]


@lru_cache(maxsize=1)
def environment() -> str:
    """What machine code depends on besides its source: processor, system, versions, settings of numba, our own code."""
    llvm.initialize_native_target()
    features = ""
    with suppress(RuntimeError):  # LLVM does not know them for every processor
        features = llvm.get_host_cpu_features().flatten()
    versions = (neon.__version__, metadata.version("numba"), llvmlite.__version__, np.__version__, sys.version)
    settings = (f"{name}={value}" for name, value in sorted(os.environ.items()) if name.startswith("NUMBA_"))
    texts = (path.read_text(encoding="utf-8") for path in _OWN)
    return "\n".join((llvm.get_process_triple(), llvm.get_host_cpu_name(), features, *versions, *settings, *texts))


# -- linking ---------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _linker() -> llvm.LLJIT:
    llvm.initialize_native_target()
    return llvm.create_lljit_compiler(suppress_errors=True)


def link(image: bytes, stages: int) -> Code:
    """Load an object file into the process; raises RuntimeError where it needs what is not there."""
    library = llvm.JITLibraryBuilder().add_object_img(image).add_current_process()
    names = [f"stage_{number}" for number in range(stages)]
    for name in names:
        library.export_symbol(name)
    linked = library.link(_linker(), f"neon_{next(_numbers)}")
    return Code(tuple(linked[name] for name in names), linked)


# -- compilation -----------------------------------------------------------------------------------


@collections_held()
def compiled(source: str, path: Path, stages: int) -> tuple[bytes | None, Code]:
    """The stages of a generated source, and the object file if there is one to keep; `path` is what errors name."""
    functions = _stages(source, path, stages)
    try:
        module, machine = _module(functions)
        image = machine.emit_object(module)
        return image, link(image, stages)
    except Exception as error:
        from numba.core.errors import NumbaError

        if isinstance(error, NumbaError):  # the source is wrong, and stays so
            raise
        if any(map(_is_method, functions)):
            raise NotLinkedError(str(error)) from error
        return None, _loaded_by_numba(functions)


@collections_held()
def assembly(source: str, path: Path, stages: int) -> str:
    """What the object file of a generated source holds, to read."""
    module, machine = _module(_stages(source, path, stages))
    return machine.emit_assembly(module)


def _stages(source: str, path: Path, stages: int) -> list[Callable[..., Any]]:
    namespace: dict[str, Any] = {"__name__": f"neon_kernels.{path.stem}"}
    exec(compile(source, str(path), "exec"), namespace)  # noqa: S102
    return [namespace[f"stage_{number}"] for number in range(stages)]


def _loaded_by_numba(functions: list[Callable[..., Any]]) -> Code:
    """The way that numba documents, for code that cannot be linked without it, and for a numba that has changed."""
    from numba import cfunc

    loaded: list[Any] = [cfunc("void(int64)", error_model="numpy")(function) for function in functions]
    return Code(tuple(function.address for function in loaded), loaded)


def _module(functions: list[Callable[..., Any]]) -> tuple[llvm.ModuleRef, llvm.TargetMachine]:
    from numba.core.compiler_lock import global_compiler_lock

    with global_compiler_lock:
        results = _results(functions)
        machine = _target_machine(results[0].library.codegen)
        first, *others = [_alone(result, f"stage_{i}", machine) for i, result in enumerate(results)]
        for other in others:
            first.link_in(other)
    return first, machine


def _results(functions: list[Callable[..., Any]]) -> list[Any]:
    """What numba makes of functions; of those that need more than generated sources do, or a numba that has changed."""
    with suppress(Exception):  # what the source is to blame for is raised again
        from neon.engine.native import lean_numba

        return [lean_numba.compiled(function, *_signature(function)) for function in functions]
    return [_compile(function, *_signature(function)) for function in functions]


def _is_method(function: Callable[..., Any]) -> bool:
    """Whether it is one of Python's C interface, which returns an object: a stage takes a context alone."""
    return function.__code__.co_argcount > 1


def _signature(function: Callable[..., Any]) -> tuple[tuple[Any, ...], Any]:
    """The types of its arguments, which are words, and of its result."""
    from numba.core import types

    return (types.int64,) * function.__code__.co_argcount, types.int64 if _is_method(function) else types.void


def _compile(function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> Any:
    """What `numba.cfunc` does, short of loading the result."""
    from numba.core import compiler, registry

    flags: Any = compiler.Flags()
    flags.nrt = True
    flags.error_model = "numpy"
    flags.no_cpython_wrapper = flags.no_compile = True
    target: Any = registry.cpu_target
    made = compiler.compile_extra(target.typing_context, target.target_context, function, arguments, result, flags, {})
    made.library.finalize()
    return made


def _target_machine(codegen: Any) -> llvm.TargetMachine:
    """One that emits what numba's own does."""
    from numba.core import config

    level: Any = config.OPT  # type: ignore[attr-defined]
    triple, cpu, features = codegen.magic_tuple()
    target = llvm.Target.from_triple(triple)
    relocation = {"x86": "static", "ppc": "pic"}.get(target.name[:3], "default")
    return target.create_target_machine(
        cpu=cpu, features=features, opt=int(level), reloc=relocation, codemodel="jitdefault", jit=True
    )


def _alone(result: Any, name: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    """A compiled stage without what it does not need.

    Its C function would report exceptions through Python and numba's runtime. A stage raises none: LLVM
    sees that once nothing else can be called from outside, and drops all that belongs to it.
    """
    module = llvm.parse_assembly(result.library.get_llvm_str())
    module.get_function(result.fndesc.llvm_cfunc_wrapper_name).name = name
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name != name:
            value.linkage = "internal"
    passes = llvm.create_new_module_pass_manager()
    passes.add_ipsccp_pass()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options()))
    return module
