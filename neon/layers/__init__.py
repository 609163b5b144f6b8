"""neon's layers, each a thin module over torch's own.

The first dimension is the minibatch: vectors are (N, features), sequences (N, T, features), images
(N, channels, height, width). The number of inputs is inferred from the first batch.
"""

from neon.layers.activation import Activation, Dropout, Reshape
from neon.layers.adversarial import GenerativeAdversarial
from neon.layers.container import Affine, Conv, Deconv, Sequential
from neon.layers.convolution import Convolution, Deconvolution, Pooling
from neon.layers.cost import GeneralizedCost, GeneralizedCostMask, GeneralizedGANCost
from neon.layers.dense import Bias, Linear, LookupTable
from neon.layers.layer import Layer, ParameterLayer
from neon.layers.merge import MergeBroadcast, MergeSum, SkipNode
from neon.layers.normalization import LRN, BatchNorm
from neon.layers.recurrent import GRU, LSTM, Recurrent
from neon.layers.recurrent_output import RecurrentLast, RecurrentMean, RecurrentSum
from neon.old_paths import names_of

__all__ = [
    "GRU", "LRN", "LSTM", "Activation", "Affine", "BatchNorm", "Bias", "Conv", "Convolution", "Deconv", "Deconvolution",
    "Dropout", "GeneralizedCost", "GeneralizedCostMask", "GeneralizedGANCost", "GenerativeAdversarial", "Layer",
    "Linear", "LookupTable", "MergeBroadcast", "MergeSum", "ParameterLayer", "Pooling", "Recurrent", "RecurrentLast",
    "RecurrentMean", "RecurrentSum", "Reshape", "Sequential", "SkipNode",
]  # fmt: skip

__getattr__ = names_of("neon.layers", __name__)
