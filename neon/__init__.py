"""neon: every update rule written once, as its equation, and run as one pass over memory."""

__version__ = "0.2.0.dev0"
