"""What may watch `Model.fit`."""

from neon.callbacks.callbacks import Callbacks, ProgressBar

__all__ = ["Callbacks", "ProgressBar"]
