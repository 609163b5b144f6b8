"""What may watch `Model.fit`."""

from neon.callbacks.callbacks import Callbacks
from neon.callbacks.documented import Callback, GANCostCallback
from neon.callbacks.progress import ProgressBar
from neon.callbacks.saving import EarlyStopCallback, SaveBestStateCallback, SerializeModelCallback
from neon.old_paths import names_of

__all__ = [
    "Callback",
    "Callbacks",
    "EarlyStopCallback",
    "GANCostCallback",
    "ProgressBar",
    "SaveBestStateCallback",
    "SerializeModelCallback",
]

__getattr__ = names_of("neon.callbacks", __name__)
