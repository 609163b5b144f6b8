"""The sizes of the tensors that a step is measured on."""

from __future__ import annotations

import math
from dataclasses import dataclass

TensorShape = tuple[int, ...]


@dataclass(frozen=True)
class Shapes:
    """The tensors of one model, and how often it is stepped.

    Attributes:
        tensors: the shape of each parameter.
        rounds: how often each contender has its turn.
        steps: in a turn, so many that the clock is read seldom enough.
        past_cache: whether the tensors are too large for any cache, so that memory is the limit.
        grouped: whether each parameter is a parameter group of its own.
        on_gpu: whether only a GPU is asked to step it: the memory of a small machine does not hold it.
    """

    tensors: tuple[TensorShape, ...]
    rounds: int
    steps: int = 1
    past_cache: bool = True
    grouped: bool = False
    on_gpu: bool = False

    @property
    def elements(self) -> int:
        return sum(map(math.prod, self.tensors))


def resnet50() -> tuple[TensorShape, ...]:
    """ResNet-50 (He et al. 2016) for ImageNet: behind each convolution a normalization, of two vectors."""
    convolutions: list[TensorShape] = [(64, 3, 7, 7)]
    channels = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            convolutions += [(width, channels, 1, 1), (width, width, 3, 3), (4 * width, width, 1, 1)]
            if block == 0:  # the shortcut changes the number of channels
                convolutions.append((4 * width, channels, 1, 1))
            channels = 4 * width
    normalized = [shape for kernel in convolutions for shape in (kernel, kernel[:1], kernel[:1])]
    return (*normalized, (1000, channels), (1000,))


def gpt2() -> tuple[TensorShape, ...]:
    """GPT-2 small (Radford et al. 2019); the head is the token embedding."""
    width = 768
    normalization = [(width,), (width,)]
    attention = [(width, 3 * width), (3 * width,), (width, width), (width,)]
    feed_forward = [(width, 4 * width), (4 * width,), (4 * width, width), (width,)]
    blocks = 12 * (normalization + attention + normalization + feed_forward)
    return ((50257, width), (1024, width), *blocks, *normalization)


def llama_1b() -> tuple[TensorShape, ...]:
    """Llama 3.2 of 1 billion parameters (Meta 2024); the head is the token embedding."""
    width, kept, hidden = 2048, 512, 8192
    attention = [(width, width), (kept, width), (kept, width), (width, width)]
    feed_forward = [(hidden, width), (hidden, width), (width, hidden)]
    blocks = 16 * (attention + feed_forward + [(width,), (width,)])
    return ((128256, width), *blocks, (width,))


SHAPES = {
    "large": Shapes(((4096, 4096),) * 3, rounds=15),
    "resnet50": Shapes(resnet50(), rounds=15),
    "gpt2": Shapes(gpt2(), rounds=7),
    "llama1b": Shapes(llama_1b(), rounds=7, on_gpu=True),
    "tiny": Shapes(((64,),) * 200, rounds=15, steps=20, past_cache=False),
    "groups": Shapes(((64,),) * 500, rounds=11, steps=10, past_cache=False, grouped=True),
}
