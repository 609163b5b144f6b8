"""What some versions of other libraries cannot do, and tests leave out with them."""

from __future__ import annotations

import os
from importlib.metadata import version
from importlib.util import find_spec

import pytest
from packaging.version import Version


def older(package: str, than: str) -> bool:
    """Whether the installed one is."""
    return Version(version(package)) < Version(than)


def _why_not_interpreted() -> str:
    if not find_spec("triton"):
        return "Triton is for Linux"
    if "TRITON_INTERPRET" not in os.environ:
        return "There is a GPU: set TRITON_INTERPRET=1"
    if older("triton", "3.7") and not older("numpy", "2.4"):
        return "before 3.7 Triton's interpreter takes an int of an array, which numpy 2.4 refuses"
    return ""


needs_interpreter = pytest.mark.skipif(bool(_why_not_interpreted()), reason=_why_not_interpreted())


def skip_exact_powers() -> None:
    """For tests in which Triton's interpreter has to give the bits of a power in float64."""
    if older("numpy", "2"):
        pytest.skip("before 2.0 numpy's exp2 and log2, of which Triton's interpreter makes powers, are less exact")


def skip_added_group(optimizer: str) -> None:
    """For tests that add a group in mid-run to one of torch's optimizers."""
    if optimizer == "Adagrad" and older("torch", "2.12"):
        pytest.skip("before 2.12 torch's own Adagrad makes no states for a group that is added")
