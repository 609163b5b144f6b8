"""Of matrices that several processes work on together: whether there is a gradient, all of these say alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from neon.messages import quoted
from neon.stepping.group_names import named_parameters
from neon.stepping.group_rules import Group, GroupRules
from neon.stepping.sharding import Mesh, Reaches, Replicas, can_be_sharded, is_shared, local


class Agreement:
    """The parameters of an optimizer whose matrices several processes share, by these."""

    def __init__(self, groups: Sequence[Group], rules: GroupRules) -> None:
        self._shared: dict[Mesh | Replicas, list[tuple[str, Any]]] = {}
        reaches = Reaches(rules.partition)
        for group in groups if can_be_sharded() or rules.sharers is not None else ():
            found = [(name, param) for name, param in named_parameters(group) if _may_be(param, rules.sharers)]
            if not found:
                continue
            settings = rules.settings(group)
            for name, param in found:
                if settings.program_of(param, rules.matrices(group, name, param)).calls:
                    reach = reaches.of(name, param) if is_shared(param) else rules.sharers
                    if isinstance(reach, (Mesh, Replicas)) and reach.size > 1:
                        self._shared.setdefault(reach, []).append((name, param))

    def __bool__(self) -> bool:
        """Whether there are such parameters."""
        return bool(self._shared)

    def decide(self) -> None:
        """Give parameters that have no gradient here, but have one elsewhere, a gradient of zeros.

        A shard's is what it has of the whole gradient then. Of whole parameters processes have the same gradients or
        none: `RuntimeError` by name on all of them where some have none.
        """
        for reach, named in self._shared.items():
            rows = reach.agree([float(param.grad is not None) for _, param in named])
            for (name, param), *flags in zip(named, *rows, strict=True):
                if all(flags) or not any(flags):
                    continue
                if isinstance(reach, Replicas):
                    raise RuntimeError(
                        f"Parameter {quoted(name)} has a gradient on some processes and none on others. With "
                        "share_matrices=True all must have the same gradients, as DistributedDataParallel gives them."
                    )
                if param.grad is None:
                    param.grad = torch.zeros_like(param)


def _may_be(param: Any, sharers: Replicas | None) -> bool:
    return is_shared(param) or (sharers is not None and local(param).dim() > 0 and sharers.shares(param))
