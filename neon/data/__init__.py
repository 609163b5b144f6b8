"""Minibatches of arrays that fit in memory."""

from neon.data.dataiterator import ArrayIterator, NervanaDataIterator

__all__ = ["ArrayIterator", "NervanaDataIterator"]
