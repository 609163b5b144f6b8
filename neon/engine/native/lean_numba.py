"""numba's compiler with what generated sources ask of it, as a target of its own beside numba's for the processor.

That one loads all that numba knows before it compiles anything (arrays, strings, dicts; scipy's linear algebra, where
scipy is installed), which takes as long as the import of numba and the compilation together. And it passes over each
function to find closures, literals and parallel loops, of which a generated source has none.
"""
# pyright: reportIncompatibleMethodOverride=false, reportIncompatibleVariableOverride=false

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from typing import Any

from numba.core import compiler, decorators, registry
from numba.core.compiler_machinery import PassManager
from numba.core.cpu import CPUContext
from numba.core.target_extension import CPU, dispatcher_registry, jit_registry, target_override, target_registry
from numba.core.typed_passes import (
    AnnotateTypes,
    IRLegalization,
    NativeLowering,
    NoPythonBackend,
    NoPythonSupportedFeatureValidation,
    NopythonTypeInference,
    PreLowerStripPhis,
)
from numba.core.typing.context import Context
from numba.core.untyped_passes import FixupArgs, GenericRewrites, IRProcessing, ReconstructSSA, TranslateByteCode

_NAME = "neon"
_PASSES = (
    TranslateByteCode, FixupArgs, IRProcessing, GenericRewrites, ReconstructSSA, NopythonTypeInference,
    PreLowerStripPhis, NoPythonSupportedFeatureValidation, IRLegalization, AnnotateTypes, NativeLowering,
    NoPythonBackend,
)  # fmt: skip


class _Pipeline(compiler.CompilerBase):
    """The passes, in their order."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager(_NAME)
        for each in _PASSES:
            passes.add_pass(each, each.__name__)
        passes.finalize()
        return [passes]


class _Typing(Context):
    """What numbers and functions of numbers give."""

    def load_additional_registries(self) -> None:
        from numba.core.typing import mathdecl, npydecl

        self.install_registry(mathdecl.registry)
        self.install_registry(npydecl.registry)


class _Lowering(CPUContext):
    """How numbers, pointers, ranges and functions of numbers become instructions."""

    def load_additional_registries(self) -> None:
        from numba.cpython import builtins, mathimpl, numbers, rangeobj, tupleobj  # noqa: F401

        self.install_registry(mathimpl.registry)

    def post_lowering(self, mod: Any, library: Any) -> None:
        """Nothing counts references: numba's runtime is not needed."""
        if self.is32bit:
            raise NotImplementedError("numba's own target divides 64-bit words here.")


class _Descriptor(registry.CPUTarget):
    @cached_property
    def _toplevel_target_context(self) -> CPUContext:
        return _Lowering(self.typing_context, _NAME)

    @cached_property
    def _toplevel_typing_context(self) -> Context:
        return _Typing()


class _Dispatcher(registry.CPUDispatcher):
    targetdescr = _Descriptor(_NAME)


class _Processor(CPU):
    """The processor, of which less is known."""


target_registry[_NAME] = _Processor
dispatcher_registry[_Processor] = _Dispatcher
_jit: Any = decorators.jit
jit_registry[_Processor] = partial(_jit, _target=_NAME, pipeline_class=_Pipeline)


def compiled(function: Callable[..., Any], arguments: tuple[Any, ...], result: Any) -> Any:
    """What numba makes of a function of words. Raises what numba raises where more is needed than is here."""
    compile_extra: Any = compiler.compile_extra
    flags: Any = compiler.Flags()
    flags.error_model = "numpy"
    flags.no_cpython_wrapper = flags.no_compile = True
    target: Any = _Dispatcher.targetdescr
    with target_override(_NAME):
        made = compile_extra(
            target.typing_context, target.target_context, function, arguments, result, flags, {},
            pipeline_class=_Pipeline,
        )  # fmt: skip
        made.library.finalize()
    return made
