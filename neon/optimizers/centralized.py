"""Gradient centralisation (Yong et al. 2020) around any rule."""

from __future__ import annotations

from neon.engine.program.spaces import ROWS
from neon.optimizers.functions import mean
from neon.optimizers.transform import Transform


def centralized(inner, w, g, *, flattened):  # type: ignore[no-untyped-def]
    """One step by the centralised gradient (Yong et al. 2020, equation 1).

    g ← g − (mean of g over all dimensions but the first)      of tensors of two dimensions and more
    w ← the rule's step
    """
    return inner(w, g - mean(g, over=ROWS) if flattened else g)


class Centralized(Transform):
    """Gradient centralisation (Yong et al. 2020) around any rule: `Centralized(AdamW(learning_rate=1e-3))`.

        g' = g − (mean of g over all dimensions but the first);  θ' = the rule's step

    Each neuron's gradient sums to 0: of a matrix each row, of a convolution each filter. Tensors of fewer than two
    dimensions keep their gradient. It is the gradient that a rule sees: clipped, and with a `wdecay` that is added to
    it. The steps are those of pytorch_optimizer's `centralize_gradient`. A rule with rows and columns of its own, as
    Adafactor, is refused: those of a convolution would be others.
    """

    around = staticmethod(centralized)
    _decay_beside = True
