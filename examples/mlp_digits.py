"""A perceptron with two hidden layers reads handwritten digits: neon's layers and `Model.fit`.

Run it: python examples/mlp_digits.py
"""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from neon.data import ArrayIterator
from neon.initializers import Kaiming
from neon.layers import Affine
from neon.models import Model
from neon.optimizers import Adam, Schedule
from neon.transforms import Accuracy, CrossEntropyMulti, Rectlin, Softmax

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)  # 1797 images of 8 x 8 pixels, values 0 to 16
split = train_test_split(pixels / 16, digits, test_size=0.2, stratify=digits, random_state=0)
train = ArrayIterator(split[0], split[2], batch_size=64)
validation = ArrayIterator(split[1], split[3], shuffle=False)

model = Model(
    [
        Affine(nout=128, init=Kaiming(), activation=Rectlin()),
        Affine(nout=64, init=Kaiming(), activation=Rectlin()),
        Affine(nout=10, init=Kaiming(), activation=Softmax(), name="head"),
    ]
)


class Validation:
    """A callback: prints the accuracy after each epoch, and ends training once it stands still."""

    def __init__(self, patience: int) -> None:
        self.patience = patience
        self.best, self.best_epoch = 0.0, 0

    def on_epoch_end(self, model: Model, epoch: int, cost: float) -> bool:
        accuracy = model.eval(validation, Accuracy())
        print(f"epoch {epoch:2}   cost {cost:.4f}   validation accuracy {accuracy:.3f}")
        if accuracy > self.best:
            self.best, self.best_epoch = accuracy, epoch
        return epoch - self.best_epoch >= self.patience


# The rate is halved every eight epochs, and the gradient never longer than 1.
optimizer = Adam(learning_rate=3e-3, gradient_clip_norm=1.0, schedule=Schedule(step_config=8, change=0.5))
model.fit(train, CrossEntropyMulti(), optimizer, num_epochs=30, callbacks=[Validation(patience=6)])
print(f"\nvalidation accuracy: {model.eval(validation, Accuracy()):.4f}")
