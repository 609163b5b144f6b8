"""Random bits without a generator: a hash of where in the model and when in training they are used.

The same (seed, parameter, step, element) gives the same word on any device, thread count, chunking
or division into shards of whole rows, and after a resume. 32-bit arithmetic throughout.
"""

from __future__ import annotations

from neon.engine.graph import Node, apply, node, word

# Two bijective 32-bit mixers with low bias: constants found by search (hash-prospector, C. Wellons, 2018).
_MIXERS = ((16, 0x7FEB352D, 15, 0x846CA68B, 16), (17, 0xED5AD4BB, 11, 0xAC4C1B51, 15))
_GOLDEN = 0x9E3779B9


def _mix(x: Node, mixer: int) -> Node:
    first, multiply, second, multiply_again, third = _MIXERS[mixer]
    x = apply("uint_mul", _fold(x, first), multiply)
    return _fold(apply("uint_mul", _fold(x, second), multiply_again), third)


def _fold(x: Node, by: int) -> Node:
    return apply("uint_xor", x, apply("uint_shr", x, by))


def random_bits(stream: int = 0) -> Node:
    """32 random bits for the element at hand; of less than 32, take the highest. Each stream has its own.

    The key of (seed, parameter, step, high word of the index) gives two words; one offsets the
    element's index, the other enters between the rounds, so that streams are not shifts of each other.
    The last step of the mixer is left out: it would change the low half alone.
    """
    leaves = {name: node(name, kind="uint") for name in ("index", "index_high", "tensor_key", "step_word")}
    key = _mix(apply("uint_add", leaves["tensor_key"], apply("uint_mul", leaves["step_word"], _GOLDEN)), 0)
    key = _mix(apply("uint_add", key, leaves["index_high"]), 1)
    salt = _mix(apply("uint_xor", key, word(_GOLDEN)), 0)
    first, multiply, second, multiply_again, _ = _MIXERS[0]
    x = apply("uint_mul", _fold(apply("uint_add", leaves["index"], key), first), multiply)
    x = apply("uint_mul", _fold(apply("uint_add", x, salt), second), multiply_again)
    # One more round, by a multiplier of the stream's own, costs a third of another hash.
    return apply("uint_mul", _fold(x, 16), (stream * _GOLDEN | 1) & 0xFFFFFFFF) if stream else x


def tensor_key(seed: int, parameter: int, shard: int = 0) -> int:
    """The word that tells one parameter's random bits from another's, and those of numbered shards."""
    x = (seed ^ (seed >> 32)) & 0xFFFFFFFF
    first, multiply, second, multiply_again, third = _MIXERS[0]
    for part in (x, parameter & 0xFFFFFFFF, *([shard] if shard else [])):
        x = (x + part + _GOLDEN) & 0xFFFFFFFF
        x = ((x ^ (x >> first)) * multiply) & 0xFFFFFFFF
        x = ((x ^ (x >> second)) * multiply_again) & 0xFFFFFFFF
        x ^= x >> third
    return x
