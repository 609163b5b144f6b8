"""What is applied to a layer's outputs: activations, costs and metrics."""

from neon.old_paths import names_of
from neon.transforms.activation import Explin, Identity, Logistic, Rectlin, Rectlinclip, Softmax, Tanh, Transform
from neon.transforms.cost import (
    Accuracy,
    Cost,
    CrossEntropyBinary,
    CrossEntropyMulti,
    MeanSquared,
    Metric,
    Misclassification,
    SumSquared,
    TopKMisclassification,
)
from neon.transforms.gan import GANCost

__all__ = [
    "Accuracy", "Cost", "CrossEntropyBinary", "CrossEntropyMulti", "Explin", "GANCost", "Identity", "Logistic",
    "MeanSquared", "Metric", "Misclassification", "Rectlin", "Rectlinclip", "Softmax", "SumSquared", "Tanh",
    "TopKMisclassification", "Transform",
]  # fmt: skip

__getattr__ = names_of("neon.transforms", __name__)
