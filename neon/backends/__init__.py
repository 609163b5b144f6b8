"""What neon's optimizers and layers know as `be`, and `gen_backend`, with which programs set it."""

from neon.backends.backend import Backend, NervanaObject, default
from neon.backends.generation import check_backend, gen_backend
from neon.old_paths import names_of

__all__ = ["Backend", "NervanaObject", "check_backend", "default", "gen_backend"]

__getattr__ = names_of("neon.backends", __name__)
