"""Samples of tensors: at most about a thousand elements of each."""

from __future__ import annotations

import torch
from torch import Tensor

from neon.assignment.param_list import is_plain
from neon.stepping.sharding import is_abstract, local

MOST = 1000


def can_be_sampled(tensor: Tensor) -> bool:
    """Whether its elements lie in memory of which one knows; of subclasses nobody can tell."""
    return not is_abstract(tensor) and is_plain(local(tensor))


def sampled(tensor: Tensor) -> Tensor:
    """Some of the elements that are here, evenly apart, and in no column of a matrix alone."""
    with torch.no_grad():
        here = local(tensor).detach()
        count = here.numel()
        every = max(1, count // MOST) | 1
        if here.is_contiguous():
            return here.view(-1)[::every]
        # What lies in another order, as channels last, is not copied as a whole.
        return here[torch.unravel_index(torch.arange(0, count, every, device=here.device), here.shape)]
