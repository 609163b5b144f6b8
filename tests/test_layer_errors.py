"""What neon's layers say about wrong arguments and inputs."""

# pyright: reportArgumentType=false
# the table passes wrong types on purpose

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from neon.initializers import Array, Constant, Gaussian, IdentityInit, Kaiming, Orthonormal, Uniform
from neon.layers import (
    GRU,
    LSTM,
    Activation,
    Affine,
    BatchNorm,
    Bias,
    Conv,
    Convolution,
    Deconv,
    Deconvolution,
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
from neon.transforms import (
    CrossEntropyBinary,
    CrossEntropyMulti,
    Explin,
    Logistic,
    Misclassification,
    Rectlin,
    Rectlinclip,
    Softmax,
    SumSquared,
)

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
    (lambda: Pooling("whole"), ValueError, """fshape must be an int, .* or "all". Received: 'whole'"""),
    (lambda: Pooling("all", padding=1), ValueError, r'padding must be 0 with fshape="all". Received: padding=\(1, 1\)'),
    (lambda: Pooling((1, 2, 2)), ValueError, r"fshape must be an int or \(height, width\)"),
    (lambda: Pooling({"R": 2}), ValueError, "fshape needs R, S. Received: {'R': 2}"),
    (
        lambda: Convolution((3, 3, 4), INIT, {"str_d": 2, "str_h": 1}),
        ValueError,
        "strides has the keys str_h, str_w. Received: 'str_d' in .*two dimensions",
    ),
    (lambda: Convolution((3, 3, 4), INIT, {"pad_h": 2}), ValueError, "strides has the keys .* Received: 'pad_h'"),
    (lambda: Convolution((3, 3, 4), INIT, 1, {"pad_h": -1}), ValueError, "padding must be 0 or more. Received: -1"),
    (lambda: Convolution((3, 3, 4), INIT, dilation=0), ValueError, "dilation must be 1 or more. Received: 0"),
    (lambda: Convolution((2, 3, 3, 4), INIT), ValueError, r"fshape must be \(height, width, number"),
    (lambda: Convolution({"R": 3, "S": 3}, INIT), ValueError, r"fshape must be \(height, width, number"),
    (lambda: Deconv({"R": 3, "S": 3, "K": 2}, INIT), ValueError, "Deconvolution's fshape has the keys R, S.*'K'"),
    (lambda: Deconvolution((3, 3, 4), INIT)(torch.ones(VECTORS)), ValueError, "Deconvolution takes images"),
    (lambda: Conv((3, 3, 4), INIT, 1, 0, Constant(0)), TypeError, "Conv's dilation must be an int.* bias=..."),
    (lambda: Affine(4, INIT, None, True), TypeError, "activation must be .*Received: True.*batch_norm=True"),
    (lambda: Affine(4, INIT, batch_norm=1), TypeError, "Affine's batch_norm must be True or False"),
    (lambda: BatchNorm(binary=True), ValueError, "binary must be False.* Received: binary=True. Leave it out"),
    (lambda: LookupTable(9, 2, INIT, "words"), TypeError, "update must be True or False. Received: .*'words'"),
    (
        lambda: LookupTable(9, 2, INIT, pad_idx=9),
        ValueError,
        "pad_idx must be less than its vocab_size, 9. Received: 9",
    ),
    (lambda: BatchNorm(rho=1.5), ValueError, r"rho must be in \[0, 1\]. Received: 1.5"),
    (lambda: BatchNorm(eps=0), ValueError, "eps must be above 0. Received: 0"),
    (lambda: Recurrent(0, INIT), ValueError, "Recurrent's output_size must be 1 or more"),
    (lambda: Recurrent(4, INIT, 0.1), TypeError, "Recurrent's init_inner must be an initializer"),
    (lambda: Recurrent(4, INIT, activation=Logistic), TypeError, r"Recurrent's activation must be .* Logistic\(\)"),
    (lambda: Recurrent(4, INIT, activation=None), TypeError, "activation must be an object to call.* Received: None"),
    (lambda: LSTM(4, INIT, None, "cells"), TypeError, "LSTM's activation must be .* Received: 'cells'"),
    (lambda: GRU(4, INIT, gate_activation=1), TypeError, "GRU's gate_activation must be .* Received: 1"),
    (lambda: GRU(4, INIT, reset_cells=0), TypeError, "GRU's reset_cells must be True or False. .*reset_cells=0"),
    (lambda: GRU(4, INIT)(torch.ones(VECTORS)), ValueError, "GRU takes sequences"),
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
    (lambda: Softmax(axis=0), ValueError, "axis must not be 0.* Received: axis=0. Leave axis out"),
    (lambda: Softmax(name=3), TypeError, "Softmax's name must be a string or None.* name=3"),
    (lambda: Logistic(shortcut=1), TypeError, "Logistic's shortcut must be True or False"),
    (lambda: Explin("1"), TypeError, "Explin's alpha must be a number"),
    (lambda: Rectlinclip(xcut=float("nan")), ValueError, "Rectlinclip's xcut must be finite"),
    (lambda: CrossEntropyMulti(usebits=2), TypeError, "CrossEntropyMulti's usebits must be True or False"),
    (lambda: CrossEntropyBinary("2"), TypeError, "CrossEntropyBinary's scale must be a number"),
    (lambda: Misclassification(steps=0), ValueError, "Misclassification's steps must be at least 1"),
    (lambda: Constant(torch.ones(3)), TypeError, r"Constant's val must be a number.*Array\(val\)"),
    (lambda: Array("words"), TypeError, "Array's val must be a tensor or an array of numbers. Received: 'words'"),
    (lambda: Bias(Array([1.0, 2.0]))(torch.ones(VECTORS)), ValueError, r"parameter's shape, \(6,\).* shape \(2,\)"),
    (lambda: Orthonormal(scale=float("inf")), ValueError, "Orthonormal's scale must be finite"),
    (lambda: Bias(IdentityInit())(torch.ones(VECTORS)), ValueError, "IdentityInit needs a weight"),
    (lambda: Gaussian(name=1), TypeError, "Gaussian's name must be a string or None"),
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
    with pytest.raises(error, match=message) as raised:
        action()
    assert len(str(raised.value)) <= 500
