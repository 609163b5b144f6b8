"""Stand-in."""

from torch import Tensor


def orthogonalized(x: Tensor, eps: float, steps: float, *numbers: float, coefficients=None, scale=None) -> Tensor:
    a, b, c = numbers or (3.4445, -4.775, 2.0315)
    rows, columns = x.shape[1:]
    t = x.mT if rows > columns else x
    t = t / t.norm(dim=(-2, -1), keepdim=True).clamp(min=eps)
    for _ in range(int(steps)):
        g = t @ t.mT
        g2 = b * g + c * g @ g
        t = a * t + g2 @ t
    out = t.mT if rows > columns else t
    return out * max(1, rows / columns) ** 0.5
