"""Sites: each parameter of a model, with the names and the classes that it can be assigned by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from neon.optimizers.param_list import Entry, layer_entries, param_entry

# Classes that every layer has: keys on them would be a second "default".
_NOT_CLASSES = {"object", "Module"}


@dataclass(frozen=True)
class Site:
    """One parameter, or a layer without any (`param` and `entry` are None).

    `names` and `classes` come nearest first: the parameter's own, its layer's, what contains the layer.
    `own` is the parameter's name within its layer, where it has one.
    """

    label: str
    kind: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    param: Tensor | None = None
    entry: Entry | None = None
    own: str = ""


@dataclass(frozen=True)
class _Path:
    """Where the walk is: names and classes gathered on the way, nearest first."""

    label: str = ""
    qualified: str = ""
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def into(self, layer: Any, child: str) -> _Path:
        """The path one layer further in; `child` is torch's name for it, empty at the root."""
        qualified = ".".join(filter(None, (self.qualified, child)))
        given = getattr(layer, "name", None)
        own = given if isinstance(given, str) else None
        classes = tuple(c.__name__ for c in type(layer).__mro__ if c.__name__ not in _NOT_CLASSES)
        piece = own or (_described(layer) if hasattr(layer, "name") or not child else child)
        return _Path(
            ".".join(filter(None, (self.label, piece))),
            qualified,
            (*filter(None, dict.fromkeys((own, qualified))), *self.names),  # type: ignore[arg-type]
            (*classes, *self.classes),
        )


def _described(layer: Any) -> str:
    """A layer without a name goes by its class, an activation by that of its transform."""
    return type(getattr(layer, "transform", layer)).__name__


def layer_sites(layers: Any) -> Iterator[Site]:
    """Every parameter of layers, nested lists and containers, each with its entry."""
    yield from _walk(layers, _Path(), _layer_parameters, top=True)


def module_sites(module: nn.Module) -> Iterator[Site]:
    """Every parameter of a torch module."""
    yield from _walk(module, _Path(), _module_parameters, top=True)


def named_sites(named: Iterable[tuple[str, Tensor]]) -> list[Site]:
    """Parameters of which only the qualified names are known; a name covers what lies below it."""
    sites = []
    for name, param in named:
        parts = name.split(".")
        names = tuple(".".join(parts[:end]) for end in range(len(parts), 0, -1))
        sites.append(Site(name, "Parameter", names, _parameter_classes(parts[-1]), param))
    return sites


def _parameter_classes(name: str) -> tuple[str, ...]:
    """neon's layers keep the bias in a layer of its own; a key "Bias" means the same on any module."""
    return ("Bias",) if name == "bias" else ()


Parameters = Callable[[Any], list[tuple[str, Tensor, Entry | None]]]


def _layer_parameters(layer: Any) -> list[tuple[str, Tensor, Entry | None]]:
    if hasattr(layer, "get_params"):
        return [("", entry[0][0], entry) for entry in layer_entries(layer)]
    return [(n, p, param_entry(p)) for n, p, _ in _module_parameters(layer) if p.requires_grad]


def _module_parameters(layer: nn.Module) -> list[tuple[str, Tensor, Entry | None]]:
    recurse = hasattr(layer, "get_params")  # a layer of neon's is one thing, however it is built
    return [(n, p, None) for n, p in layer.named_parameters(recurse=recurse, remove_duplicate=False)]


def _walk(layer: Any, path: _Path, parameters: Parameters, child: str = "", top: bool = False) -> Iterator[Site]:
    inner = layer if isinstance(layer, (list, tuple)) else getattr(layer, "layers", None)
    if not isinstance(layer, nn.Module) and isinstance(inner, (list, tuple)):
        inside = path if inner is layer else path.into(layer, "")
        for sublayer in inner:
            yield from _walk(sublayer, inside, parameters)
        return
    is_layer = hasattr(layer, "get_params")
    if not is_layer and not isinstance(layer, nn.Module):
        raise TypeError(f"A layer must have get_params() or be a torch.nn.Module. Received: {type(layer).__name__}.")
    children = list(layer._modules.items()) if isinstance(layer, nn.Module) and not is_layer else []
    inside = path.into(layer, child)
    # The root has a class, but no name of its own before those of its parts.
    here = _Path(classes=inside.classes) if top and children else inside
    own = parameters(layer)
    kind = type(layer).__name__
    for name, param, entry in own:
        names, classes = here.names, here.classes
        if name:
            names = (".".join(filter(None, (here.qualified, name))), *names)
        if not is_layer:
            classes = (*_parameter_classes(name), *classes)
        yield Site(here.label or kind, kind, names, classes, param, entry, own=name)
    for name, module in children:
        if module is not None:
            yield from _walk(module, here, parameters, name)
    if not own and not children:
        yield Site(here.label, kind, here.names, here.classes)


def get_param_list(layer_list: Any) -> list[tuple[tuple[Tensor, Tensor], list[Tensor]]]:
    """Flatten layers, nested lists and containers into a list of `((param, grad), states)`.

    Parameters without a gradient are left out. Any `torch.nn.Module` is a layer too.
    """
    found = {}
    for site in layer_sites(layer_list):
        if site.entry is not None and site.entry[0][1] is not None:
            (param, grad), states = site.entry
            found[id(states)] = ((param, grad), states)
    return list(found.values())
