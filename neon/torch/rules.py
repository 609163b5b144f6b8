"""torch.optim's update rules, where its formulas are not those of `neon.optimizers`."""

from __future__ import annotations

from functools import lru_cache

from neon.engine.program.trace import Rule
from neon.optimizers.functions import equal, maximum, sqrt, where


def sgd(w, g, momentum_buffer, *, lr, momentum, dampening, nesterov, step):  # type: ignore[no-untyped-def]
    """One step of torch.optim.SGD with momentum (Sutskever et al. 2013, with the rate outside the buffer).

        momentum_buffer ← μ·momentum_buffer + (1−τ)·g     with τ = 0 in the first step
        w               ← w − lr·momentum_buffer          or, with Nesterov's form,
        w               ← w − lr·(g + μ·momentum_buffer)

    `dampening` is τ; `step` is the number of this update of the tensor, from 1.

    >>> numbers = dict(lr=0.1, momentum=0.9, dampening=0.25)
    >>> w, momentum_buffer = sgd(1.0, 0.5, -0.2, **numbers, nesterov=False, step=2)
    >>> round(w, 8), round(momentum_buffer, 8)
    (0.9805, 0.195)
    >>> round(sgd(1.0, 0.5, -0.2, **numbers, nesterov=True, step=2)[0], 8)
    0.93245
    >>> sgd(1.0, 0.5, 0.0, **numbers, nesterov=False, step=1)
    (0.95, 0.5)
    """
    momentum_buffer = momentum * momentum_buffer + where(equal(step, 1), 1, 1 - dampening) * g
    w = w - lr * (g + momentum * momentum_buffer if nesterov else momentum_buffer)
    return w, momentum_buffer


def amsgrad(  # type: ignore[no-untyped-def]
    w, g, exp_avg, exp_avg_sq, max_exp_avg_sq, *, lr, betas, eps, weight_decay, decoupled_weight_decay, step
):
    """One step of AMSGrad (Reddi, Kale & Kumar 2018, algorithm 2, with Adam's corrections).

        exp_avg        ← β₁·exp_avg + (1−β₁)·g
        exp_avg_sq     ← β₂·exp_avg_sq + (1−β₂)·g²
        max_exp_avg_sq ← max(max_exp_avg_sq, exp_avg_sq)
        w              ← w − lr · exp_avg/(1−β₁ᵗ) / (√(max_exp_avg_sq/(1−β₂ᵗ)) + ε)

    The weight decay λ·w is added to g or, decoupled, lr·λ·w is subtracted from w. `step` is t.

    >>> numbers = dict(lr=0.1, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1, step=3)
    >>> w, _, exp_avg_sq, max_exp_avg_sq = amsgrad(1.0, 0.5, 0.1, 0.2, 0.3, **numbers, decoupled_weight_decay=True)
    >>> round(w, 8), round(exp_avg_sq, 8), max_exp_avg_sq
    (0.97374512, 0.2005, 0.3)
    >>> w, exp_avg, *_, max_exp_avg_sq = amsgrad(1.0, 0.5, 0.1, 0.2, 0.1, **numbers, decoupled_weight_decay=False)
    >>> round(w, 8), round(exp_avg, 8), round(max_exp_avg_sq, 8)
    (0.97875473, 0.15, 0.2016)
    """
    beta1, beta2 = betas
    if not decoupled_weight_decay:
        g = g + weight_decay * w
    exp_avg = beta1 * exp_avg + (1 - beta1) * g
    exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * g * g
    max_exp_avg_sq = maximum(max_exp_avg_sq, exp_avg_sq)
    step_size = lr / (1 - beta1**step)
    correction = 1 / sqrt(1 - beta2**step)
    delta = step_size * exp_avg / (sqrt(max_exp_avg_sq) * correction + eps)
    if decoupled_weight_decay:
        delta = lr * weight_decay * w + delta  # one rounding of w, as in AdamW
    return w - delta, exp_avg, exp_avg_sq, max_exp_avg_sq


def rmsprop(w, g, square_avg, *, lr, alpha, eps):  # type: ignore[no-untyped-def]
    """One step of torch.optim.RMSprop (Tieleman & Hinton 2012, lecture 6.5, with ε outside the root only).

        square_avg ← α·square_avg + (1−α)·g²
        w          ← w − lr·g / (√square_avg + ε)

    >>> w, square_avg = rmsprop(1.0, 0.5, 0.2, lr=0.1, alpha=0.9, eps=0.01)
    >>> round(w, 8), round(square_avg, 8)
    (0.89195479, 0.205)
    """
    square_avg = alpha * square_avg + (1 - alpha) * g * g
    return w - lr * g / (sqrt(square_avg) + eps), square_avg


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


def adagrad(w, g, sum, *, lr, lr_decay, eps, step):  # type: ignore[no-untyped-def]
    """One step of torch.optim.Adagrad (Duchi, Hazan & Singer 2011, the diagonal form), with ε outside the root.

        sum ← sum + g²
        w   ← w − lr/(1 + (t−1)·η) · g / (√sum + ε)

    `lr_decay` is η; `step` is t, the number of this update of the tensor, from 1.

    >>> w, total = adagrad(1.0, 0.5, 0.2, lr=0.1, lr_decay=0.5, eps=0.01, step=3)
    >>> round(w, 8), round(total, 8)
    (0.9632796, 0.45)
    """
    sum = sum + g * g
    return w - lr / (1 + (step - 1) * lr_decay) * g / (sqrt(sum) + eps), sum


@lru_cache(maxsize=32)  # what is made for a rule is kept as long as the rule
def adagrad_from(start: float) -> Rule:
    """Adagrad whose sum starts at a value other than 0."""

    def adagrad_from_start(w, g, sum=start, *, lr, lr_decay, eps, step):  # type: ignore[no-untyped-def]
        return adagrad(w, g, sum, lr=lr, lr_decay=lr_decay, eps=eps, step=step)

    return adagrad_from_start
