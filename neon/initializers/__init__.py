"""How a layer's parameters get their first values."""

from neon.initializers.initializer import Constant, Gaussian, GlorotUniform, Initializer, Kaiming, Uniform, Xavier
from neon.initializers.matrices import Array, IdentityInit, Orthonormal

__all__ = [
    "Array", "Constant", "Gaussian", "GlorotUniform", "IdentityInit", "Initializer", "Kaiming", "Orthonormal",
    "Uniform", "Xavier",
]  # fmt: skip
