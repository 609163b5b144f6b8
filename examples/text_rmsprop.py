"""A recurrent network learns to write like Python's manual, character by character, by RMSProp.

The text is the language reference that comes with Python itself (`help("lambda")` reads it there).

Run it: python examples/text_rmsprop.py          (--quick: fewer epochs)
"""

from __future__ import annotations

import argparse
import math

import numpy as np
import torch
from pydoc_data.topics import topics

from neon.data import ArrayIterator
from neon.initializers import GlorotUniform, Uniform
from neon.layers import LSTM, Affine, LookupTable
from neon.models import Model
from neon.optimizers import RMSProp
from neon.transforms import CrossEntropyMulti, Softmax

STEPS = 64  # characters in a sequence
UNITS = 128

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--quick", action="store_true", help="train for 2 epochs instead of 8")
epochs = 2 if parser.parse_args().quick else 8

torch.manual_seed(0)
text = "\n".join(topics[name] for name in sorted(topics))[:300_000]
alphabet = sorted(set(text))
number = {character: i for i, character in enumerate(alphabet)}
codes = np.array([number[character] for character in text])

# The network reads characters 0 to 63 of each sequence and is asked for characters 1 to 64.
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
# One cost a sequence, the mean over its characters; recurrent gradients burst now and then.
optimizer = RMSProp(learning_rate=4e-3, gradient_clip_value=0.02)
BITS = 1 / math.log(2)


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
