# ruff: noqa: ARG001
"""Rules in numpy, with what libraries vary as arguments. `s` holds the states, which begin at 0; t counts from 1."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray
States = Any  # a dictionary in which what is missing is 0.0


def norm(x: Array) -> float:
    return float(np.sqrt(np.sum(x * x)))


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x * x)))


def sgd(w, g, t, s, *, lr, mu=0.0, nesterov=False, decay=0.0, decoupled=0.0, rate_within=False):
    g, w = g + decay * w, w - lr * decoupled * w
    inner, outer = (lr, 1.0) if rate_within else (1.0, lr)
    s["b"] = mu * s["b"] + inner * g
    return w - outer * (inner * g + mu * s["b"] if nesterov else s["b"])


def rmsprop(w, g, t, s, *, lr, alpha, inside=0.0, outside=0.0, mu=0.0, start=0.0, rate_within=False):
    if t == 1:
        s["v"] = start
    s["v"] = alpha * s["v"] + (1 - alpha) * g * g
    inner, outer = (lr, 1.0) if rate_within else (1.0, lr)
    s["b"] = mu * s["b"] + inner * g / (np.sqrt(s["v"] + inside) + outside)
    return w - outer * s["b"]


def adagrad(w, g, t, s, *, lr, start=0.0, inside=0.0, outside=0.0):
    s["sum"] = (start if t == 1 else s["sum"]) + g * g
    return w - lr * g / (np.sqrt(s["sum"] + inside) + outside)


def adadelta(w, g, t, s, *, lr, rho, eps):
    s["v"] = rho * s["v"] + (1 - rho) * g * g
    step = np.sqrt((s["d"] + eps) / (s["v"] + eps)) * g
    s["d"] = rho * s["d"] + (1 - rho) * step * step
    return w - lr * step


def means(g, s, b1, b2):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * g * g
    return s["m"], s["v"]


def adam(
    w, g, t, s, *, lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, decoupled=0.0, absolute=0.0,
    raw_eps=False, root=0.0, stable=False, stable_decay=False,
):  # fmt: skip
    """`raw_eps`: ε is beside the root that is not corrected; `root`: within it; `absolute`: a decay not times the rate;
    `stable`: the rate falls by the root mean square of g over the root, and with `stable_decay` the decay's too.
    """
    g = g + decay * w
    m, v = means(g, s, b1, b2)
    c1, c2 = 1 - b1**t, np.sqrt(1 - b2**t)
    divisor = (np.sqrt(v + root) + eps) / c2 if raw_eps else np.sqrt(v) / c2 + eps
    bounded = lr / max(1.0, rms(g / (divisor - eps if stable_decay else divisor))) if stable else lr
    return w * (1 - (bounded if stable_decay else lr) * decoupled - absolute) - bounded * m / c1 / divisor


def nadam(w, g, t, s, *, lr, eps=1e-8, momentum_decay=None, look_ahead=True, decoupled=0.0):
    """Without `momentum_decay` there is no schedule; then `look_ahead` corrects the mean by the power of t+1."""
    b1, b2, w = 0.9, 0.999, w * (1 - lr * decoupled)
    m, v = means(g, s, b1, b2)
    if momentum_decay is not None:
        mu, after = (b1 * (1 - 0.5 * 0.96 ** (k * momentum_decay)) for k in (t, t + 1))
        s["product"] = mu if t == 1 else s["product"] * mu
        update = (1 - mu) * g / (1 - s["product"]) + after * m / (1 - s["product"] * after)
    elif look_ahead:
        update = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    else:
        update = (b1 * m + (1 - b1) * g) / (1 - b1**t)
    return w - lr * update / (np.sqrt(v / (1 - b2**t)) + eps)


def rectification(t, b2):
    longest = 2 / (1 - b2) - 1
    length = longest - 2 * t * b2**t / (1 - b2**t)
    if length <= 5:
        return None
    return np.sqrt((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length))


def radam(w, g, t, s, *, lr, b1=0.9, b2=0.999, eps=1e-8, early=1.0):
    """`early`: by what the mean is multiplied before the root is trusted."""
    m, v = means(g, s, b1, b2)
    r = rectification(t, b2)
    return w - lr * m / (1 - b1**t) * (early if r is None else r * np.sqrt(1 - b2**t) / (np.sqrt(v) + eps))


def adamax(w, g, t, s, *, lr, b1=0.9, b2=0.999, within=0.0, outside=0.0):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["u"] = np.maximum(b2 * s["u"], np.abs(g) + within)
    return w - lr / (1 - b1**t) * s["m"] / (s["u"] + outside)


def asgd(w, g, t, s, *, lr, lambd=1e-4, alpha=0.75):
    """The rate that the step before has left."""
    eta = lr if t == 1 else s["eta"]
    s["eta"] = lr / (1 + lambd * lr * t) ** alpha
    return w * (1 - lambd * eta) - eta * g


def rprop(w, g, t, s, *, lr, shrink=0.5, grow=1.2, least=1e-6, most=50.0, late=False):
    """`late`: each move is made a step later, where the gradient has not turned in between."""
    s["size"] = np.full_like(w, lr) if t == 1 else s["size"]
    before, turned = s["move"], np.sign(g * s["move"])
    factor = np.where(turned > 0, grow, np.where(turned < 0, shrink, 1.0))
    s["size"] = np.clip(s["size"] * factor, least, most)
    s["move"] = np.where(turned < 0, 0.0, np.sign(g) * s["size"])
    return w - (np.where(turned < 0, 0.0, before) if late else s["move"])


def adafactor(
    w, g, t, s, *, rate, squares=1e-30, eps1=None, momentum=0.0, cap=1.0, decay=None, factored=True
):  # fmt: skip
    """`rate` is a function of t, `decay` of t and of the scale a. With `eps1` ε is torch's, compared with means, in
    place of `squares`, added to g². `cap`: of β₂.
    """
    share, a = max(t**-0.8, 1 - cap), max(1e-3, rms(w))
    square = g * g + (squares if eps1 is None else 0.0)
    if w.ndim == 2 and factored:
        s["r"] = s["r"] + share * (square.mean(-1, keepdims=True) - s["r"])
        s["c"] = s["c"] + share * (square.mean(-2, keepdims=True) - s["c"])
        middle = s["r"].mean()
        v = s["r"] * s["c"] / (middle if eps1 is None else max(middle, eps1))
    else:
        s["v"] = v = s["v"] + share * (square - s["v"])
    u = g / (np.sqrt(v) if eps1 is None else np.sqrt(np.maximum(v, eps1 * eps1)))
    u = u / max(1.0, rms(u))
    s["m"] = momentum * s["m"] + (1 - momentum) * rate(t) * a * u
    return w - (decay(t, a) * w if decay else 0.0) - s["m"]


def ratio(above: float, below: float) -> float:
    """1 where a norm is 0."""
    return above / below if above > 0 and below > 0 else 1.0


def lamb(w, g, t, s, *, lr, eps=1e-6, decay=0.0, decoupled=0.0, adapt=True, clip=None):
    if clip is not None:
        g = g / max(1.0, norm(g) / clip)
    w = w * (1 - lr * decoupled)
    m, v = means(g, s, 0.9, 0.999)
    u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + eps) + decay * w
    return w - lr * (ratio(norm(w), norm(u)) if adapt else 1.0) * u


def lamb_of_raw_means(w, g, t, s, *, lr, eps=1e-6):
    """The ratio is of means that are not corrected, and then the step is divided by the correction."""
    m, v = means(g, s, 0.9, 0.999)
    u = m / (np.sqrt(v) + eps)
    return w - lr / (1 - 0.9**t) * ratio(min(norm(w), 10.0), norm(u) + eps) * u


def lamb_that_bounds(w, g, t, s, *, lr, eps=1e-8, bound=1.0):
    """The update is never longer than `bound` times the weights, and never stretched."""
    m, v = means(g, s, 0.9, 0.999)
    c1, c2 = 1 - 0.9**t, np.sqrt(1 - 0.999**t)
    u = m / (np.sqrt(v) + eps * c2)
    return w - lr * c2 / c1 * min(1.0, bound * norm(w) / norm(u)) * u


def lars(w, g, t, s, *, lr, mu=0.0, decay=0.0, coefficient=0.001, eps=0.0, adapt=True, of_sum=False, rate_within=False):
    """`of_sum`: ‖g + λw‖ is divided by in place of ‖g‖ + λ‖w‖."""
    decayed = g + decay * w
    length = norm(decayed) if of_sum else norm(g) + decay * norm(w) + eps
    u = decayed * (ratio(coefficient * norm(w), length) if adapt else 1.0)
    return sgd(w, u, t, s, lr=lr, mu=mu, rate_within=rate_within)


def lars_that_bounds(w, g, t, s, *, lr, mu=0.9, bound=0.02):
    s["b"] = mu * s["b"] + g
    return w - lr * min(1.0, bound * norm(w) / norm(s["b"])) * s["b"]


def lion(w, g, t, s, *, lr, b1=0.9, b2=0.99, decoupled=0.0, cautious=None):
    u = np.sign(b1 * s["m"] + (1 - b1) * g)
    s["m"] = b2 * s["m"] + (1 - b2) * g
    return w * (1 - lr * decoupled) - lr * u * (cautious(u * g > 0) if cautious else 1.0)


def adan(w, g, t, s, *, lr, b1=0.98, b2=0.92, b3=0.99, eps=1e-8, root=0.0, share=None, decay=0.0):
    """`share`: of the difference, in the step and in the squares; β₂ in the paper."""
    share = b2 if share is None else share
    change = 0.0 * g if t == 1 else g - s["g"]
    s["g"] = g
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["d"] = b2 * s["d"] + (1 - b2) * change
    s["n"] = b3 * s["n"] + (1 - b3) * (g + share * change) ** 2
    u = s["m"] / (1 - b1**t) + share * s["d"] / (1 - b2**t)
    return (w - lr * u / (np.sqrt(s["n"] / (1 - b3**t) + root) + eps)) / (1 + lr * decay)


def adopt(w, g, t, s, *, lr, clip, b1=0.9, b2=0.9999, eps=1e-6):
    """`clip` of t; the first step only fills the mean of squares."""
    if t == 1:
        s["v"] = g * g
        return w
    u = np.clip(g / np.maximum(np.sqrt(s["v"]), eps), -clip(t), clip(t))
    s["m"] = b1 * s["m"] + (1 - b1) * u
    s["v"] = b2 * s["v"] + (1 - b2) * g * g
    return w - lr * s["m"]


def adabelief(w, g, t, s, *, lr, b1=0.9, b2=0.999, eps=1e-16, rectified=False):
    s["m"] = b1 * s["m"] + (1 - b1) * g
    s["v"] = b2 * s["v"] + (1 - b2) * (g - s["m"]) ** 2 + eps
    m = s["m"] / (1 - b1**t)
    r = rectification(t, b2) if rectified else 1.0
    return w - lr * (m if r is None else r * m / (np.sqrt(s["v"] / (1 - b2**t)) + eps))


def mars(w, g, t, s, *, lr, b1, first=True, raw_eps=False, root=0.0):
    """`first`: whether the first gradient is corrected too, by its difference from 0."""
    before = s["g"] if t > 1 or first else g
    c = g + 0.025 * b1 / (1 - b1) * (g - before)
    s["g"] = g
    return adam(w, c / max(1.0, norm(c)), t, s, lr=lr, b1=b1, b2=0.99, raw_eps=raw_eps, root=root)


def signum(w, g, t, s, *, lr, mu=0.9, decoupled=0.0):
    s["m"] = mu * s["m"] + (1 - mu) * g
    return w * (1 - lr * decoupled) - lr * np.sign(s["m"])


def prodigy(w, g, t, s, *, lr=1.0, b1=0.9, b2=0.999, eps=1e-8, d0=1e-6, corrected=False):
    b3 = np.sqrt(b2)
    if t == 1:
        s["w0"], s["d"] = w, d0
    d = s["d"]
    rate = d * lr * (np.sqrt(1 - b2**t) / (1 - b1**t) if corrected else 1.0)
    means(d * g, s, b1, b2)
    s["s"] = b3 * s["s"] + d / d0 * rate * g
    s["above"] = b3 * s["above"] + d / d0 * rate * np.sum(g * (s["w0"] - w))
    s["d"] = max(d, s["above"] / np.sum(np.abs(s["s"])))
    return w - rate * s["m"] / (np.sqrt(s["v"]) + s["d"] * eps)


def schedule_free(w, g, t, s, *, lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, decay_of_y=0.0, counted=False):
    """AdamW's. `decay_of_y`: one of the weights y that z does not see; `counted`: shares of 1/t, whatever the rate."""
    if t == 1:
        s["z"] = w
    y, z = w * (1 - lr * decay_of_y), s["z"]
    s["v"] = b2 * s["v"] + (1 - b2) * g * g
    s["z"] = z - lr * (g / (np.sqrt(s["v"] / (1 - b2**t)) + eps) + decay * y)
    s["most"] = max(s["most"], lr)
    s["weights"] += 1.0 if counted else s["most"] ** 2
    share = (1.0 if counted else s["most"] ** 2) / s["weights"]
    x = (1 - share) * (y - (1 - b1) * z) / b1 + share * s["z"]
    return b1 * x + (1 - b1) * s["z"]


def lookahead(w, g, t, s, *, k, late=False):
    """Around descent with the rate 1, and half of the way. `late`: slow weights are those after the first k steps."""
    if t == (k if late else 1):
        s["slow"] = w - g if late else w
    w = w - g
    if t % k == 0:
        s["slow"] = w = s["slow"] + 0.5 * (w - s["slow"])
    return w
