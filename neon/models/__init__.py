"""Networks of layers that can be trained, measured, saved and loaded."""

from neon.models.gan import GAN
from neon.models.model import Model

__all__ = ["GAN", "Model"]
