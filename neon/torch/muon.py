"""torch.optim's Muon over neon's steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.optim.optimizer import ParamsT
from typing_extensions import Unpack

from neon.arguments import non_negative
from neon.engine.calls.schedules import SCALES, SCHEDULES
from neon.engine.calls.ways import processor
from neon.engine.program.options import Check
from neon.engine.tensors.weight_matrices import Parts
from neon.messages import quoted, shown
from neon.optimizers.asgd import finite
from neon.optimizers.muon import coefficients, muon, processor_units, scale_name, step_count
from neon.stepping.group_names import named_parameters
from neon.torch.described import DropIn, GraphOptions, TorchRule


def _optional_scale(name: str, value: Any) -> str | None:
    return None if value is None else scale_name(name, value)


class MuonRule(TorchRule):
    """Muon, of whose ε torch allows every number."""

    of_matrices = True
    rule = staticmethod(muon)
    _bounds: ClassVar[Mapping[str, Check]] = {
        **TorchRule._bounds,
        "weight_decay": non_negative,
        "eps": finite,
        "ns_coefficients": coefficients,
        "ns_steps": step_count,
        "adjust_lr_fn": _optional_scale,
        "units": processor_units,
    }

    def scale_of(self, shape: tuple[int, int], values: Mapping[str, Any]) -> float:
        return SCALES[values["adjust_lr_fn"] or "original"](*shape)


class Muon(DropIn):
    """torch.optim.Muon (Jordan et al. 2024), for hidden matrices.

        b ← μb + (1−μ)g;  u = b, with `nesterov` (1−μ)g + μb;  w ← (1 − lr·λ)w − lr·s·p(u/max(‖u‖, ε))

    p applies aX + b(XXᵀ)X + c(XXᵀ)²X of `ns_coefficients` `ns_steps` times. s is by R rows and C columns √max(1, R/C)
    ("original", or None), 0.2√max(R, C) ("match_rms_adamw") or √(R/C) ("spectral_unclamped", in torch from 2.14 on).
    `momentum` is μ, `weight_decay` λ, `eps` ε. Parameters have two dimensions, as torch's. The other arguments are
    described at `DropIn`.

    torch iterates in bfloat16, which makes it wrong by some per cent of a step; and of bfloat16 gradients without
    `nesterov` it divides its buffer by the buffer's norm at each step, up to 2.14. Here the buffer is the average of
    gradients. `units`, of groups too, is what the way there was chosen for: None for the processor at hand. `parts`
    says by name which parameters are several matrices: `{"*.c_attn.weight": 3}`.
    """

    rule = MuonRule

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: Sequence[float] = SCHEDULES["simple"][0],
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
        *,
        maximize: bool = False,
        units: str | None = None,
        parts: Parts = None,
        **options: Unpack[GraphOptions],
    ) -> None:
        self._take(locals() | {"units": units or processor()})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        for name, param in named_parameters(self.param_groups[-1]):
            if not is_lazy(param) and param.dim() != 2:
                self.param_groups.pop()
                raise ValueError(
                    f"Muon takes parameters of two dimensions. {quoted(name)} has shape {shown(tuple(param.shape))}: "
                    "give it another optimizer, such as AdamW; neon.optimizers.Muon takes convolutions too."
                )
