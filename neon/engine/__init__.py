"""The engine: from a rule, an equation, to one pass over memory."""

from neon.engine.backends import compilations, use_backend

__all__ = ["compilations", "use_backend"]
