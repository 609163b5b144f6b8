"""What a parameter is to its layer: a matrix, or several in one, an embedding, or neither."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neon.engine.tensors.weight_matrices import Matrices

# Roles that are keys, as classes are.
HIDDEN, HEAD = "HiddenMatrix", "OutputHead"
ROLES = (HIDDEN, HEAD)
EMBEDDING, VECTOR = "embedding", "a vector"

# By the names of classes: look-alikes, and layers of neon's own, are the same.
EMBEDDINGS = {"Embedding", "EmbeddingBag", "LookupTable"}
_CONVOLUTIONS = {"_ConvNd", "Convolution"}
_TRANSPOSED = {"_ConvTransposeNd", "Deconvolution"}
_GATES = {"LSTM": 4, "LSTMCell": 4, "GRU": 3, "GRUCell": 3, "RNN": 1, "RNNCell": 1}
# Query, key and value of torch's attention.
_FUSED = Matrices(3)
# Its last layer, which has no output of a model.
_WITHIN = {"NonDynamicallyQuantizableLinear"}


@dataclass(frozen=True)
class Role:
    """What a parameter is: `key` by which mappings may assign it, what tables say of it, its matrices where it has any.

    `heads` says whether its layer could give the outputs of a model; `tied` are the names of what it is tied to.
    """

    key: str = ""
    said: str = ""
    matrices: Matrices | None = None
    heads: bool = False
    tied: tuple[str, ...] = ()


NO_ROLE = Role()


def role_of(layer: Any, name: str, param: Tensor) -> Role:
    """What a parameter is to its layer, as far as the layer alone tells; `name` is the parameter's there."""
    if is_lazy(param) or param.dim() < 2:
        return NO_ROLE
    kinds = {kind.__name__ for kind in type(layer).__mro__}
    name = name or _name_of(layer, param)
    if kinds & EMBEDDINGS and name == "weight":
        return Role(said=EMBEDDING)
    matrices = _matrices(layer, kinds, name)
    if matrices is None:
        return Role(said="of no known layer")
    sides = {side for _, *rest in matrices.shapes(param.shape) for side in rest}
    heads = name == "weight" and not (kinds & (_WITHIN | {"Bilinear"} | _GATES.keys()))
    if 1 in sides:  # also each filter of a convolution by channels
        return Role("", VECTOR, matrices, heads)
    return Role(HIDDEN, "", matrices, heads)


def role_by_name(name: str, param: Tensor) -> Role:
    """The little that the name alone tells: torch's attention has its query, key and value in one weight."""
    is_fused = name == "in_proj_weight" and not is_lazy(param) and param.dim() == 2
    return Role(matrices=_FUSED) if is_fused else NO_ROLE


def _matrices(layer: Any, kinds: Collection[str], name: str) -> Matrices | None:
    """The matrices of a parameter that has at least two dimensions."""
    if "MultiheadAttention" in kinds:
        single = name in ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        return _FUSED if name == "in_proj_weight" else Matrices() if single else None
    if gates := max((_GATES.get(kind, 0) for kind in kinds), default=0):
        if name.startswith(("weight_ih", "weight_hh")):
            return Matrices(gates)
        return Matrices() if name.startswith("weight_hr") else None
    if name != "weight":
        return None
    groups = getattr(layer, "groups", 1)
    groups = groups if isinstance(groups, int) else 1
    if _TRANSPOSED.intersection(kinds):
        return Matrices(groups, inputs_first=True)
    if _CONVOLUTIONS.intersection(kinds):
        return Matrices(groups)
    if "Conv1D" in kinds:  # of GPT-2 in transformers
        return Matrices(inputs_first=True)
    if "Bilinear" in kinds:
        return Matrices(stacked=True)
    return Matrices() if any(kind.endswith("Linear") for kind in kinds) else None


def _name_of(layer: Any, param: Tensor) -> str:
    """The name of a parameter that a layer gives by `get_params()`."""
    named = layer.named_parameters() if isinstance(layer, nn.Module) else ()
    return next((name for name, own in named if not is_lazy(own) and own.data_ptr() == param.data_ptr()), "")
