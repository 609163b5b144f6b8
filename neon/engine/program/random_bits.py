"""Random bits without a generator: a hash of where in the model and when in training they are used.

The same (seed, parameter, step, element) gives the same word on any device, thread count, chunking
or division into shards of whole rows, and after a resume. 32-bit arithmetic throughout.
"""

from __future__ import annotations

from neon.engine.program.graph import Node, apply, node, word

# Two bijective 32-bit mixers with low bias: constants found by search (hash-prospector, C. Wellons, 2018).
_MIXERS = ((16, 0x7FEB352D, 15, 0x846CA68B, 16), (17, 0xED5AD4BB, 11, 0xAC4C1B51, 15))
_GOLDEN = 0x9E3779B9


def _mix(x: Node, mixer: int) -> Node:
    first, multiply, second, multiply_again, third = _MIXERS[mixer]
    x = apply("uint_mul", _fold(x, first), multiply)
    return _fold(apply("uint_mul", _fold(x, second), multiply_again), third)


def _fold(x: Node, by: int) -> Node:
    return apply("uint_xor", x, apply("uint_shr", x, by))


def _keys() -> tuple[Node, Node]:
    """Two words made of (seed, parameter, step, high word of the index)."""
    leaves = {name: node(name, kind="uint") for name in ("index_high", "tensor_key", "step_word")}
    key = _mix(apply("uint_add", leaves["tensor_key"], apply("uint_mul", leaves["step_word"], _GOLDEN)), 0)
    key = _mix(apply("uint_add", key, leaves["index_high"]), 1)
    return key, _mix(apply("uint_xor", key, word(_GOLDEN)), 0)


def random_bits() -> Node:
    """32 random bits for the element at hand; of less than 32, take the highest.

    One key offsets the element's index, the other enters between the rounds, so that streams are not shifts of
    each other. The last step of the mixer is left out: it would change the low half alone.
    """
    key, salt = _keys()
    first, multiply, second, multiply_again, _ = _MIXERS[0]
    x = apply("uint_mul", _fold(apply("uint_add", node("index", kind="uint"), key), first), multiply)
    return apply("uint_mul", _fold(apply("uint_add", x, salt), second), multiply_again)


def dither_bits(stream: int) -> Node:
    """Random bits for the states, of which less is asked than of weights, at a third of the cost; `stream` ≥ 1.

    From step to step the bits of an element are as random as its key. Neighbours' are a shuffled Weyl sequence:
    spread more evenly than at random. Streams are told apart by powers of one multiplier: by its multiples they
    would be multiples of each other, which correlate.
    """
    _, salt = _keys()
    shuffled = _fold(apply("uint_add", node("index", kind="uint"), salt), 16)
    return apply("uint_mul", shuffled, pow(_GOLDEN, stream, 1 << 32))


def tensor_key(seed: int, parameter: int, shard: int = 0) -> int:
    """The word that tells one parameter's random bits from another's, and those of numbered shards."""
    first, multiply, second, multiply_again, third = _MIXERS[0]
    x = 0  # not the seed itself: twice the seed would forget its highest bit
    for part in (seed, *filter(None, [seed >> 32]), parameter, *filter(None, [shard])):
        x = (x + part + _GOLDEN) & 0xFFFFFFFF
        x = ((x ^ (x >> first)) * multiply) & 0xFFFFFFFF
        x = ((x ^ (x >> second)) * multiply_again) & 0xFFFFFFFF
        x ^= x >> third
    return x
