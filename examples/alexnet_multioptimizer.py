"""A small AlexNet (Krizhevsky et al. 2012): one optimizer for weights, one for biases, one for the head.

Run it: python examples/alexnet_multioptimizer.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from neon.data import ArrayIterator
from neon.initializers import Constant, Kaiming
from neon.layers import Affine, Conv, Dropout, Pooling
from neon.models import Model
from neon.optimizers import Adam, GradientDescentMomentum, MultiOptimizer, Schedule
from neon.transforms import Accuracy, CrossEntropyMulti, Rectlin, Softmax

EPOCHS = 10

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)  # 1797 images of 8 x 8 pixels, values 0 to 16
split = train_test_split(pixels / 16, digits, test_size=0.2, stratify=digits, random_state=0)
train = ArrayIterator(split[0], split[2], batch_size=64, lshape=(1, 8, 8))
validation = ArrayIterator(split[1], split[3], shuffle=False, lshape=(1, 8, 8))


def conv(filters: int) -> Conv:
    """3 x 3 windows, a bias, a rectifier."""
    return Conv((3, 3, filters), init=Kaiming(), padding=1, bias=Constant(0.0), activation=Rectlin())


# AlexNet's five convolutions, three poolings and three dense layers, for 8 x 8 pixels.
layers = [
    conv(16),
    Pooling(3, strides=1, padding=1),
    conv(32),
    Pooling(2),
    conv(48),
    conv(48),
    conv(32),
    Pooling(2),
    Dropout(keep=0.7),
    Affine(nout=128, init=Kaiming(), bias=Constant(0.0), activation=Rectlin()),
    Dropout(keep=0.7),
    Affine(nout=64, init=Kaiming(), bias=Constant(0.0), activation=Rectlin()),
    Affine(nout=10, init=Kaiming(), activation=Softmax(), name="head"),
]
model = Model(layers)

drop = Schedule(step_config=[6, 8], change=0.25)
optimizer = MultiOptimizer(
    {
        # The paper's momentum and weight decay; biases learn twice as fast and do not decay.
        "default": GradientDescentMomentum(0.05, 0.9, wdecay=5e-4, schedule=drop, name="weights"),
        "Bias": GradientDescentMomentum(0.1, 0.9, schedule=drop, name="biases"),
        "head": Adam(learning_rate=1e-3, name="head's own"),
    },
    gradient_clip_norm=2.0,  # one norm over all three
)

model.get_outputs(validation)  # the layers learn their sizes from a batch
print(optimizer.table(layers), "\n")


class Report:
    """A callback: what each epoch brought."""

    def on_epoch_end(self, model: Model, epoch: int, cost: float) -> None:
        accuracy = model.eval(validation, Accuracy())
        print(f"epoch {epoch}   cost {cost:.4f}   validation accuracy {accuracy:.3f}")


model.fit(train, CrossEntropyMulti(), optimizer, EPOCHS, callbacks=[Report()])
print(f"\nvalidation accuracy: {model.eval(validation, Accuracy()):.4f}")
