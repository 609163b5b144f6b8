"""What is applied to a layer's outputs: activations, costs and metrics."""

from neon.transforms.activation import Identity, Logistic, Rectlin, Softmax, Tanh, Transform
from neon.transforms.cost import (
    Accuracy,
    Cost,
    CrossEntropyBinary,
    CrossEntropyMulti,
    MeanSquared,
    Metric,
    Misclassification,
    SumSquared,
)
from neon.transforms.gan import GANCost

__all__ = [
    "Accuracy",
    "Cost",
    "CrossEntropyBinary",
    "CrossEntropyMulti",
    "GANCost",
    "Identity",
    "Logistic",
    "MeanSquared",
    "Metric",
    "Misclassification",
    "Rectlin",
    "Softmax",
    "SumSquared",
    "Tanh",
    "Transform",
]
