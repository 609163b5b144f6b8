"""What neon's layers say about wrong arguments and inputs."""

# pyright: reportArgumentType=false
# the table passes wrong types on purpose

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from neon.initializers import Constant, Gaussian, Kaiming, Uniform
from neon.layers import (
    LSTM,
    Activation,
    BatchNorm,
    Bias,
    Convolution,
    Dropout,
    GeneralizedCost,
    Linear,
    LookupTable,
    Pooling,
    Recurrent,
    RecurrentLast,
    Reshape,
    Sequential,
)
from neon.transforms import CrossEntropyMulti, Logistic, Rectlin, Softmax, SumSquared

INIT = Gaussian(scale=0.1)
VECTORS = (5, 6)

ERRORS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: Linear(0, INIT), ValueError, "Linear's nout must be 1 or more. Received: 0"),
    (lambda: Linear(2.0, INIT), TypeError, "Linear's nout must be an int. Received: 2.0"),
    (lambda: Linear(True, INIT), TypeError, "nout must be an int. Received: True"),
    (lambda: Linear(2, 0.1), TypeError, "Linear's init must be an initializer .* Received: 0.1"),
    (lambda: Linear(2, Gaussian), TypeError, "Linear's init must be an initializer"),
    (lambda: Linear(2, INIT, 3), TypeError, "Linear's name must be a string or None. Received: 3"),
    (lambda: Linear(2, INIT, "top")(torch.ones(3)), ValueError, r"Linear 'top' takes .* \(3,\)"),
    (lambda: Activation(Rectlin), TypeError, r"transform must be .* such as Rectlin\(\)"),
    (lambda: Activation("relu"), TypeError, "transform must be an object to call.*'relu'"),
    (lambda: Dropout(0), ValueError, r"keep is .* in \(0, 1\]. Received: 0"),
    (lambda: Dropout("half"), TypeError, "Dropout's keep must be a number. Received: 'half'"),
    (lambda: Reshape(64), TypeError, "Reshape's reshape must be the shape of one sample"),
    (
        lambda: Reshape((1, 4, 4))(torch.ones(VECTORS)),
        ValueError,
        r"Reshape cannot give samples of shape \(6,\) the shape \(1, 4, 4\)",
    ),
    (lambda: Convolution((3, 3), INIT), ValueError, r"fshape must be \(height, width, number"),
    (lambda: Convolution((3, 3, 0), INIT), ValueError, "fshape must be 1 or more. Received: 0"),
    (lambda: Convolution((3, 3, 4), INIT, 0), ValueError, "strides must be 1 or more"),
    (lambda: Convolution((3, 3, 4), INIT, (1, 1, 1)), ValueError, "strides must be an int or"),
    (lambda: Convolution((3, 3, 4), INIT, 1, -1), ValueError, "padding must be 0 or more"),
    (
        lambda: Convolution((3, 3, 4), INIT)(torch.ones(VECTORS)),
        ValueError,
        r"takes images .* Received: inputs of shape \(5, 6\). Put a Reshape",
    ),
    (lambda: Pooling(2, "median"), ValueError, 'op must be "max" or "avg". Received: \'median\''),
    (lambda: Pooling(3, padding=2), ValueError, "at most half its window"),
    (lambda: BatchNorm(rho=1.5), ValueError, r"rho must be in \[0, 1\]. Received: 1.5"),
    (lambda: BatchNorm(eps=0), ValueError, "eps must be above 0. Received: 0"),
    (lambda: Recurrent(0, INIT), ValueError, "Recurrent's output_size must be 1 or more"),
    (lambda: Recurrent(4, INIT, 0.1), TypeError, "Recurrent's init_inner must be an initializer"),
    (
        lambda: Recurrent(4, INIT, activation=Logistic()),
        ValueError,
        r"activation must be Tanh\(\) or Rectlin\(\). Received: Logistic\(\)",
    ),
    (lambda: LSTM(4, INIT)(torch.ones(VECTORS)), ValueError, "LSTM takes sequences"),
    (lambda: RecurrentLast()(torch.ones(VECTORS)), ValueError, "RecurrentLast takes sequences"),
    (lambda: LookupTable(9, 2, INIT)(torch.ones(3)), TypeError, "takes integer indices.*float32"),
    (lambda: Sequential([Rectlin()]), TypeError, "A layer must be a torch.nn.Module"),
    (lambda: Sequential(Linear(4, INIT)), TypeError, "layers must be a list of layers"),
    (lambda: GeneralizedCost(SumSquared), TypeError, "costfunc must be a cost to call"),
    (lambda: Gaussian(scale=-1), ValueError, "scale is a standard deviation.* Received: -1"),
    (lambda: Gaussian(scale=float("nan")), ValueError, "scale must be finite. Received: nan"),
    (lambda: Gaussian("0"), TypeError, "Gaussian's loc must be a number. Received: '0'"),
    (lambda: Uniform(2, 1), ValueError, "low must not be above its high.*low=2, high=1"),
    (lambda: Constant(float("inf")), ValueError, "Constant's val must be finite"),
    (lambda: Bias(Kaiming())(torch.ones(VECTORS)), ValueError, r"shape \(6,\).*Constant\(0.0\)"),
    (lambda: Rectlin(slope="x"), TypeError, "Rectlin's slope must be a number"),
    (lambda: Softmax(axis=1.0), TypeError, "Softmax's axis must be an int"),
    (
        lambda: SumSquared()(torch.ones(4, 2), torch.ones(4)),
        ValueError,
        r"targets shaped like the outputs, \(4, 2\). Received: targets of shape \(4,\)",
    ),
    (
        lambda: CrossEntropyMulti()(torch.ones(4, 3), torch.ones(4)),
        ValueError,
        r"integer class numbers of shape \(4,\), or .* \(4, 3\). Received: torch.float32",
    ),
]


@pytest.mark.parametrize(("action", "error", "message"), ERRORS, ids=[m for _, _, m in ERRORS])
def test_bad_input_is_named(action: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        action()
