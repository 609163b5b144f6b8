"""The task that needs no download: scikit-learn's handwritten digits and a small network."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from neon.commands.compare.task import Task
from neon.commands.errors import MissingExtraError

VALIDATION_EVERY = 5


def digits_network() -> nn.Module:
    """A convolutional network for 8 x 8 images: 37,802 parameters in four layers with names.

    The names (``conv1``, ``conv2``, ``hidden``, ``head``) are keys for a MultiOptimizer.
    """
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 16, kernel_size=3, padding=1),
            relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, kernel_size=3, padding=1),
            relu2=nn.ReLU(),
            pool=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            hidden=nn.Linear(32 * 4 * 4, 64),
            relu3=nn.ReLU(),
            head=nn.Linear(64, 10),
        )
    )


def digits() -> Task:
    """1,797 images of 8 x 8 pixels in ten classes (Alpaydin and Kaynak 1998, UCI optdigits).

    Every fifth image of each class is for validation: 1,442 train, 355 validate, with the same
    share of each digit in both. The split depends on nothing but the data.

    Raises:
        MissingExtraError: scikit-learn, which holds the images, is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise MissingExtraError("the digits task", "scikit-learn") from error
    pixels, classes = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().reshape(-1, 1, 8, 8) / 16.0
    labels = torch.from_numpy(classes).long()
    held_out = _every_nth_of_each_class(labels, VALIDATION_EVERY)
    return Task(
        model=digits_network,
        train=(images[~held_out], labels[~held_out]),
        validation=(images[held_out], labels[held_out]),
        name="digits",
    )


def _every_nth_of_each_class(labels: Tensor, n: int) -> Tensor:
    chosen = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
    for label in labels.unique():
        members = (labels == label).nonzero().flatten()
        chosen[members[n - 1 :: n]] = True
    return chosen
