"""What differs between versions of torch, and what serves where one lacks it.

No version is asked for its number: what is there and answers as it should is used.
"""
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import ctypes
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, TypeVar

import torch
from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., Any])


def uncompiled(method: Method) -> Method:
    """A function that breaks a compiled graph cleanly, with all that it calls.

    As `torch.compiler.disable`, which would import the compiler (1 s) and cost a call each time.
    """
    try:
        dynamo = torch._C._dynamo.eval_frame
        skip = dynamo._FrameAction.SKIP
        dynamo.set_code_exec_strategy(method.__code__, dynamo._FrameExecStrategy(skip, skip))
    except (AttributeError, TypeError):
        return torch.compiler.disable(method)  # type: ignore[return-value]
    method._torchdynamo_disable = True  # type: ignore[attr-defined]
    method._torchdynamo_disable_msg = "neon's steps are machine code already"  # type: ignore[attr-defined]
    return method


def has_compiled() -> bool:
    """Whether torch's compiler has read any function in this process: it would read hooks too, and compile anew."""
    frames = sys.modules.get("torch._dynamo.convert_frame")
    return frames is not None and getattr(frames, "FRAME_COUNTER", 1) > 0


def questions(names: Iterable[str]) -> list[int] | None:
    """The addresses of functions of torch's stable C interface, aoti_torch_NAME, or None where it lacks one."""
    try:
        library = ctypes.CDLL(torch._C.__file__)
        functions = [getattr(library, f"aoti_torch_{name}") for name in names]
    except (AttributeError, OSError):
        return None
    return [ctypes.cast(function, ctypes.c_void_p).value or 0 for function in functions]


def functions() -> dict[str, int] | None:
    """The addresses of functions of torch's C++ interface that no other one has, or None where one lacks or errs.

    `grad(impl)` gives the address of the gradient's handle, which holds `undefined` where there is none;
    `bump_version(handle)` tells autograd of a write; `is_neg(handle)` says whether a tensor is negated lazily;
    `profiled()` whether a profiler is on, and `get_num_threads()` what torch's function of the name does.
    """
    names = {
        "grad": "_ZNK3c1010TensorImpl4gradEv",
        "bump_version": "_ZN5torch8autograd4impl12bump_versionERKN2at6TensorE",
        "is_neg": "_ZN2at6native6is_negERKNS_6TensorE",
        "profiled": "_ZN5torch8profiler4impl15profilerEnabledEv",
        "get_num_threads": "_ZN2at15get_num_threadsEv",
    }
    try:
        library = ctypes.CDLL(torch._C.__file__)
        found = {name: getattr(library, symbol) for name, symbol in names.items()}
        # Whatever the first step is within: no mode of somebody else's sees what is tried here.
        with torch.inference_mode(mode=False), torch._C.DisableTorchFunction(), torch._C._DisableTorchDispatch():
            return _verified(found)
    except (AttributeError, OSError, RuntimeError):
        return None


def _verified(functions: Mapping[str, Any]) -> dict[str, int] | None:
    """The addresses, with `undefined`, of functions that do what they are taken for."""
    one, other, none = (torch.zeros(1, device="cpu", requires_grad=True) for _ in range(3))
    one.grad, other.grad = torch.zeros(1, device="cpu"), torch._neg_view(torch.zeros(1, device="cpu"))  # pyright: ignore[reportPrivateImportUsage]
    word = ctypes.c_void_p
    functions["grad"].restype = word
    functions["is_neg"].restype = functions["profiled"].restype = ctypes.c_bool

    def handle(tensor: Tensor) -> Any:
        return word(functions["grad"](word(tensor._cdata)))

    def held(tensor: Tensor) -> int:
        return word.from_address(handle(tensor).value).value or 0

    before = one.grad._version
    functions["bump_version"](handle(one))
    found = (held(one), held(other), one.grad._version, [functions["is_neg"](handle(each)) for each in (one, other)])
    expected = (one.grad._cdata, other.grad._cdata, before + 1, [False, True])
    found += functions["profiled"](), functions["get_num_threads"]()
    if found != (*expected, torch._C._autograd._profiler_enabled(), torch.get_num_threads()):
        return None
    addresses = {name: ctypes.cast(function, word).value or 0 for name, function in functions.items()}
    return addresses | {"undefined": held(none)}


def guards(tensors: Sequence[Tensor]) -> Any:
    """What `torch.compile` compares tensors by, one call for many; None where there is none that can be trusted."""
    return _guards(tensors) if _guards_work() else None


def _guards(tensors: Sequence[Tensor]) -> Any:
    return torch._C._dynamo.guards.TensorGuards(
        *tensors,
        dynamic_dims_sizes=[list(t.shape) for t in tensors],
        dynamic_dims_strides=[list(t.stride()) for t in tensors],
    )


@lru_cache(maxsize=1)
def _guards_work() -> bool:
    """Whether torch has them, and they tell apart what has to be told apart."""
    zeros = partial(torch.zeros, dtype=torch.float32, device="cpu")
    known, others = zeros(2), (zeros(3), zeros(2).double(), zeros(4)[::2], None)
    try:
        found = _guards([known])
        return found.check(zeros(2)) and not any(found.check(other) for other in others)
    except (AttributeError, TypeError):
        return False


def warn_of_set(params: Any) -> None:
    """Warn, whatever the version, of what torch warns of from 2.15 on and will refuse: parameters in a set."""
    if isinstance(params, (set, frozenset)):
        warnings.warn(
            f"The parameters are a {type(params).__name__}, whose order changes from run to run: a checkpoint would "
            "give them each other's states. Give a list. torch will refuse sets.",
            FutureWarning,
            stacklevel=_outside(),
        )


def called_by(module: str) -> bool:
    """Whether code of this module is among what has led here."""
    frame = sys._getframe()
    while frame is not None and frame.f_globals.get("__name__") != module:
        frame = frame.f_back
    return frame is not None


def _outside() -> int:
    """How far up neon's first caller is, as its caller counts for `warnings.warn`."""
    level, frame = 0, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").startswith("neon."):
        level, frame = level + 1, frame.f_back
    return level
