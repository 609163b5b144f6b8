"""RMSProp (Tieleman & Hinton 2012), and torch's forms of it."""

from __future__ import annotations

from typing_extensions import Unpack

from neon.arguments import non_negative, positive, unit_interval
from neon.engine.program.numbers import Number
from neon.optimizers.functions import sqrt
from neon.optimizers.optimizer import Optimizer
from neon.optimizers.schedules import Schedule
from neon.optimizers.signatures import DecayOptions


def rmsprop(w, g, square_avg, *, lr, alpha, eps):  # type: ignore[no-untyped-def]
    """One step of RMSProp (Tieleman & Hinton 2012, lecture 6.5), with ε inside and outside the root.

        square_avg ← α·square_avg + (1−α)·g²
        w          ← w − lr·g / (√(square_avg + ε) + ε)

    >>> w, square_avg = rmsprop(1.0, 0.5, 0.2, lr=0.1, alpha=0.9, eps=0.01)
    >>> round(w, 8), round(square_avg, 8)
    (0.89444371, 0.205)
    """
    square_avg = alpha * square_avg + (1 - alpha) * g * g
    w = w - lr * g / (sqrt(square_avg + eps) + eps)
    return w, square_avg


def torch_rmsprop(w, g, square_avg, *, lr, alpha, eps):  # type: ignore[no-untyped-def]
    """One step of torch.optim.RMSprop (Tieleman & Hinton 2012, lecture 6.5, with ε outside the root only).

        square_avg ← α·square_avg + (1−α)·g²
        w          ← w − lr·g / (√square_avg + ε)

    >>> w, square_avg = torch_rmsprop(1.0, 0.5, 0.2, lr=0.1, alpha=0.9, eps=0.01)
    >>> round(w, 8), round(square_avg, 8)
    (0.89195479, 0.205)
    """
    square_avg = alpha * square_avg + (1 - alpha) * g * g
    return w - lr * g / (sqrt(square_avg) + eps), square_avg


torch_rmsprop.__name__ = "rmsprop"  # the program's


def rmsprop_momentum(w, g, square_avg, momentum_buffer, *, lr, alpha, eps, momentum):  # type: ignore[no-untyped-def]
    """One step of torch.optim.RMSprop with momentum.

        square_avg      ← α·square_avg + (1−α)·g²
        momentum_buffer ← μ·momentum_buffer + g / (√square_avg + ε)
        w               ← w − lr·momentum_buffer

    >>> w, _, momentum_buffer = rmsprop_momentum(1.0, 0.5, 0.2, -0.4, lr=0.1, alpha=0.9, eps=0.01, momentum=0.5)
    >>> round(w, 8), round(momentum_buffer, 8)
    (0.91195479, 0.88045207)
    """
    square_avg = alpha * square_avg + (1 - alpha) * g * g
    momentum_buffer = momentum * momentum_buffer + g / (sqrt(square_avg) + eps)
    return w - lr * momentum_buffer, square_avg, momentum_buffer


def rmsprop_centered(w, g, square_avg, grad_avg, *, lr, alpha, eps):  # type: ignore[no-untyped-def]
    """One step of torch.optim.RMSprop, centered (Graves 2013, equations 38 to 40, with ε outside the root).

        square_avg ← α·square_avg + (1−α)·g²
        grad_avg   ← α·grad_avg + (1−α)·g
        w          ← w − lr·g / (√(square_avg − grad_avg²) + ε)

    As in torch, NaN where gradients hardly vary and rounding makes the difference negative.

    >>> w, _, grad_avg = rmsprop_centered(1.0, 0.5, 0.2, -0.4, lr=0.1, alpha=0.9, eps=0.01)
    >>> round(w, 8), round(grad_avg, 8)
    (0.85294118, -0.31)
    """
    square_avg = alpha * square_avg + (1 - alpha) * g * g
    grad_avg = alpha * grad_avg + (1 - alpha) * g
    return w - lr * g / (sqrt(square_avg - grad_avg * grad_avg) + eps), square_avg, grad_avg


def rmsprop_centered_momentum(  # type: ignore[no-untyped-def]
    w, g, square_avg, grad_avg, momentum_buffer, *, lr, alpha, eps, momentum
):
    """One step of torch.optim.RMSprop, centered, with momentum.

        square_avg      ← α·square_avg + (1−α)·g²
        grad_avg        ← α·grad_avg + (1−α)·g
        momentum_buffer ← μ·momentum_buffer + g / (√(square_avg − grad_avg²) + ε)
        w               ← w − lr·momentum_buffer

    >>> numbers = dict(lr=0.1, alpha=0.9, eps=0.01, momentum=0.5)
    >>> w, *_, momentum_buffer = rmsprop_centered_momentum(1.0, 0.5, 0.2, -0.4, -0.6, **numbers)
    >>> round(w, 8), round(momentum_buffer, 8)
    (0.88294118, 1.17058824)
    """
    square_avg = alpha * square_avg + (1 - alpha) * g * g
    grad_avg = alpha * grad_avg + (1 - alpha) * g
    momentum_buffer = momentum * momentum_buffer + g / (sqrt(square_avg - grad_avg * grad_avg) + eps)
    return w - lr * momentum_buffer, square_avg, grad_avg, momentum_buffer


class RMSProp(Optimizer):
    """RMSProp (Tieleman & Hinton 2012): steps by the gradient over the root of its mean square.

        μ' = λμ + (1−λ)g²;  θ' = θ − α g / (√(μ'+ε) + ε)

    The other options are `Optimizer`'s. Raises `ValueError` or `TypeError` for others.
    """

    rule = staticmethod(rmsprop)
    learning_rate = Number(2e-3, non_negative, "lr", "α ≥ 0")
    decay_rate = Number(0.95, unit_interval, "alpha", "λ in [0, 1]")
    epsilon = Number(1e-6, positive, "eps", "ε > 0")

    def __init__(
        self,
        stochastic_round: bool | int = False,
        decay_rate: float = 0.95,
        learning_rate: float = 2e-3,
        epsilon: float = 1e-6,
        gradient_clip_norm: float | None = None,
        gradient_clip_value: float | None = None,
        param_clip_value: float | None = None,
        name: str | None = None,
        schedule: Schedule | None = None,
        **options: Unpack[DecayOptions],
    ) -> None:
        self._take(locals())


RMSprop = RMSProp
