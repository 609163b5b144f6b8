"""The logger `neon`, with a level of its own for what a program reports: `logger.display("error = 2.1 %")`."""

from __future__ import annotations

import logging

__all__ = ["DISPLAY", "Logger", "logger"]

# Above ERROR, so that every threshold lets it through but CRITICAL.
DISPLAY = 41
logging.addLevelName(DISPLAY, "DISPLAY")


class Logger(logging.Logger):
    """Python's logger with a method for the level DISPLAY; without a handler it prints to the standard error."""

    def display(self, message: object, *args: object) -> None:
        """Log a message that every program shows, whatever its verbosity."""
        self.log(DISPLAY, message, *args, stacklevel=2)


logger = logging.getLogger("neon")
logger.__class__ = Logger
assert isinstance(logger, Logger)
