"""How a layer's parameters get their first values."""

from neon.initializers.initializer import Constant, Gaussian, GlorotUniform, Initializer, Kaiming, Uniform

__all__ = ["Constant", "Gaussian", "GlorotUniform", "Initializer", "Kaiming", "Uniform"]
