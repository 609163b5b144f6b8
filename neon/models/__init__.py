"""Networks of layers that can be trained, measured, saved and loaded."""

from neon.models.gan import GAN
from neon.models.model import Model
from neon.old_paths import names_of

__all__ = ["GAN", "Model"]

__getattr__ = names_of("neon.models", __name__)
