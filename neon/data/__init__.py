"""Minibatches of arrays that fit in memory."""

from neon.data.dataiterator import ArrayIterator, NervanaDataIterator
from neon.old_paths import names_of

__all__ = ["ArrayIterator", "NervanaDataIterator"]

__getattr__ = names_of("neon.data", __name__)
