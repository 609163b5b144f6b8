"""A recurrent network learns to write like Python's manual, character by character, by RMSProp.

The text is the language reference that comes with Python itself (`help("lambda")` reads it there).

Run it: python examples/text_rmsprop.py          (--quick: fewer epochs)
"""

from __future__ import annotations

import argparse
import math
from pydoc_data.topics import topics

import numpy as np
import torch

from neon.data import ArrayIterator
from neon.initializers import GlorotUniform, Uniform
from neon.layers import LSTM, Affine, LookupTable
from neon.models import Model
from neon.optimizers import RMSProp
from neon.transforms import CrossEntropyMulti, Softmax

STEPS = 32  # characters in a sequence
UNITS = 128

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="train for 2 epochs instead of 6")
epochs = 2 if parser.parse_args().quick else 6

torch.manual_seed(0)
torch.set_num_threads(1)  # a step of this LSTM is too small to share, and would wait for a busy core
text = "\n".join(topics[name] for name in sorted(topics))[:300_000]
alphabet = sorted(set(text))
number = {character: i for i, character in enumerate(alphabet)}
codes = np.array([number[character] for character in text])

# The network reads characters 0 to 31 of a sequence and is asked for characters 1 to 32.
sequences = (len(codes) - 1) // STEPS
read = codes[: sequences * STEPS].reshape(sequences, STEPS)
asked = codes[1 : sequences * STEPS + 1].reshape(sequences, STEPS)
held_out = sequences // 10
train = ArrayIterator(read[:-held_out], asked[:-held_out], batch_size=64)
validation = ArrayIterator(read[-held_out:], asked[-held_out:], shuffle=False)

model = Model(
    [
        LookupTable(len(alphabet), 32, init=Uniform(-0.1, 0.1)),
        LSTM(UNITS, init=GlorotUniform()),
        Affine(len(alphabet), init=GlorotUniform(), activation=Softmax()),
    ]
)
# The gradient of a recurrent network bursts now and then: each element is kept within [-1, 1].
optimizer = RMSProp(learning_rate=1e-2, gradient_clip_value=1.0)
BITS = 1 / (STEPS * math.log(2))  # a cost is the sum over a sequence, in nats


def continue_text(start: str, length: int) -> str:
    """What the network writes after `start`, each character drawn from its probabilities."""
    written = start
    for _ in range(length):
        recent = torch.tensor([[number[character] for character in written[-STEPS:]]])
        probabilities = model.get_outputs([(recent, recent)])[0, -1]
        written += alphabet[int(torch.multinomial(probabilities, 1))]
    return written


class Report:
    """A callback: what each epoch brought, in bits a character."""

    def on_epoch_end(self, model: Model, epoch: int, cost: float) -> None:
        bits = model.eval(validation, CrossEntropyMulti()) * BITS
        print(f"epoch {epoch}   training {cost * BITS:.2f} bits   validation {bits:.2f} bits")


frequency = np.bincount(codes) / len(codes)
print(f"{len(text):,} characters, {len(alphabet)} different ones: {math.log2(len(alphabet)):.2f} bits")
print(f"each by its frequency: {-np.sum(frequency * np.log2(frequency)):.2f} bits\n")
model.fit(train, CrossEntropyMulti(), optimizer, epochs, callbacks=[Report()])
print(f"\n{continue_text('The statement ', 300)}\n")
print(f"bits per character: {model.eval(validation, CrossEntropyMulti()) * BITS:.3f}")
