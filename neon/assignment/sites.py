"""Sites: each parameter of a model, with the names and the classes that it can be assigned by."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from neon.assignment.matrix_layers import NO_ROLE, Role, role_by_name, role_of
from neon.assignment.param_list import Entry, Given, is_neons, joined, layer_entries, memory, param_entry
from neon.assignment.wrappers import bare_names, unwrapped
from neon.messages import shortened

# Classes that every layer has: keys on them would be a second "default".
_NOT_CLASSES = {"object", "Module"}
# The kind of parameters of which only names are known.
NAMED = "Parameter"


@dataclass(frozen=True)
class Site:
    """One parameter, or a layer without any (`param` and `entry` are None).

    `names` and `classes` come nearest first: the parameter's own, its layer's, what contains the layer. `own` is the
    parameter's name within its layer, where it has one. `role` is what it is to its layer, and after `with_roles` to
    the whole model. The layer itself, and the `sharers` that have the same parameter, are there in layer lists alone:
    what is attached holds no module.
    """

    label: str
    kind: str
    names: tuple[str, ...]
    classes: tuple[str, ...]
    param: Tensor | None = None
    entry: Entry | None = None
    own: str = ""
    role: Role = field(default=NO_ROLE, repr=False, compare=False)
    layer: Any = field(default=None, repr=False, compare=False)
    sharers: tuple[Any, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class _Path:
    """Where the walk is: names and classes gathered on the way, nearest first.

    `qualified` is torch's name without what wrappers put into it, `wrapped` the same with it.
    """

    label: str = ""
    qualified: str = ""
    wrapped: str = ""
    names: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()

    def into(self, layer: Any, child: str, wrappers: list[str]) -> _Path:
        """The path one layer further in; `child` is torch's name for it, empty at the root."""
        qualified, wrapped = dotted(self.qualified, child), dotted(self.wrapped, child, *wrappers)
        given = getattr(layer, "name", None)
        own = given if isinstance(given, str) else None
        classes = tuple(c.__name__ for c in type(layer).__mro__ if c.__name__ not in _NOT_CLASSES)
        piece = own or (_described(layer) if hasattr(layer, "name") or not child else child)
        names = filter(None, dict.fromkeys((own, qualified, wrapped)))
        return _Path(dotted(self.label, piece), qualified, wrapped, (*names, *self.names), (*classes, *self.classes))

    def names_of(self, parameter: str) -> tuple[str, ...]:
        """The names of a parameter of the layer, its own first where it has one."""
        own = (dotted(self.qualified, parameter), dotted(self.wrapped, parameter)) if parameter else ()
        return (*dict.fromkeys(own), *self.names)


def dotted(*parts: str) -> str:
    """The parts of a name, empty ones left out, as one."""
    return ".".join(filter(None, parts))


def _described(layer: Any) -> str:
    """A layer without a name goes by its class, an activation by that of its transform."""
    return type(getattr(layer, "transform", layer)).__name__


def site_name(site: Site) -> str:
    """The name that a group keeps for a parameter."""
    return site.names[0] if site.names else site.label


def layer_sites(layers: Any, given: Given | None = None) -> Iterator[Site]:
    """Every parameter of layers, nested lists and containers, each with its entry and its layer."""
    yield from _walk(layers, _Path(), as_layers=True, top=True, given=given)


def module_sites(module: nn.Module) -> Iterator[Site]:
    """Every parameter of a torch module."""
    yield from _walk(module, _Path(), as_layers=False, top=True)


def named_sites(named: Iterable[tuple[str, Tensor]]) -> list[Site]:
    """Parameters of which only the qualified names are known; a name covers what lies below it."""
    given = list(named)
    sites = []
    for (name, param), unwrapped_name in zip(given, bare_names([name for name, _ in given]), strict=True):
        names, own = dict.fromkeys((*_prefixes(name), *_prefixes(unwrapped_name))), name.rpartition(".")[2]
        sites.append(Site(name, NAMED, tuple(names), _parameter_classes(own), param, role=role_by_name(own, param)))
    return sites


def _prefixes(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(len(parts), 0, -1))


def _parameter_classes(name: str) -> tuple[str, ...]:
    """neon's layers keep the bias in a layer of its own; a key "Bias" means the same on any module."""
    return ("Bias",) if name == "bias" else ()


def _walk(
    layer: Any, path: _Path, *, as_layers: bool, child: str = "", top: bool = False, given: Given | None = None
) -> Iterator[Site]:
    wrappers: list[str] = []
    if isinstance(layer, nn.Module):
        layer, wrappers = unwrapped(layer)
    elif isinstance(layer, (list, tuple)):
        for sublayer in layer:
            yield from _walk(sublayer, path, as_layers=as_layers, given=given)
        return
    elif _is_container(layer):
        yield from _inside_container(layer, path.into(layer, "", []), given)
        return
    entries = layer_entries(layer, given) if as_layers else None
    if entries is None and not isinstance(layer, nn.Module):
        raise TypeError(_not_a_layer(layer))
    is_one = entries is not None or is_neons(layer)  # a layer of neon's is one thing, however it is built
    children = [] if is_one else list(layer._modules.items())  # pyright: ignore[reportAttributeAccessIssue]
    inside = path.into(layer, child, wrappers)
    # The root has a class, but no name of its own before those of its parts.
    here = _Path(wrapped=inside.wrapped, classes=inside.classes) if top and children else inside
    kind, found = type(layer).__name__, False
    for name, param, entry in _parameters(layer, entries, as_layers=as_layers, is_one=is_one):
        found = True
        classes = here.classes if is_one else (*_parameter_classes(name), *here.classes)
        role, owner = (NO_ROLE, layer) if as_layers else (role_of(layer, name, param), None)
        yield Site(here.label or kind, kind, here.names_of(name), classes, param, entry, name, role, owner)
    for name, module in children:
        if module is not None:
            yield from _walk(module, here, as_layers=as_layers, child=name, given=given)
    if not found and not children:
        yield Site(here.label, kind, here.names, here.classes)


def _is_container(layer: Any) -> bool:
    """Whether it has `layers`; of what has `get_params()` too, these may be something else, such as their sizes."""
    inner = None if isinstance(layer, type) else getattr(layer, "layers", None)
    if not isinstance(inner, (list, tuple)):
        return False
    return not hasattr(layer, "get_params") or all(map(_is_layer, inner))


def _is_layer(value: Any) -> bool:
    return isinstance(value, (nn.Module, list, tuple)) or hasattr(value, "get_params") or _is_container(value)


def _inside_container(container: Any, path: _Path, given: Given | None) -> Iterator[Site]:
    """The parameters of a container's layers, and then those that it gives itself and none of them has."""
    found = set()
    for layer in container.layers:
        for site in _walk(layer, path, as_layers=True, given=given):
            found.add(site.param if site.param is None else memory(site.param))
            yield site
    for entry in layer_entries(container, given) or []:
        if memory(param := entry[0][0]) not in found:
            yield Site(path.label, type(container).__name__, path.names, path.classes, param, entry, layer=container)


def _not_a_layer(value: Any) -> str:
    several = ""
    if isinstance(value, Iterable) and not isinstance(value, (str, Tensor)):
        several = f" Of several, give a list: list(layers{'.values()' * isinstance(value, Mapping)})."
    kind = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    return f"A layer must have get_params() or be a torch.nn.Module. Received: {shortened(kind)}.{several}"


def _parameters(
    layer: Any, entries: list[Entry] | None, *, as_layers: bool, is_one: bool
) -> Iterator[tuple[str, Tensor, Entry | None]]:
    """The parameters of a layer, of torch's modules with their names; layer lists have those that are trained."""
    if entries is not None:
        yield from (("", entry[0][0], entry) for entry in entries)
        return
    for name, param in layer.named_parameters(recurse=is_one, remove_duplicate=False):
        if not as_layers:
            yield name, param, None
        elif param.requires_grad:
            yield name, param, param_entry(param)


def by_parameter(sites: Iterable[Site]) -> list[list[Site]]:
    """The sites of each parameter together, in the order of their first; a layer without parameters stands alone.

    One parameter is one object. In layer lists, where `get_params()` may make a view at each call, it is one memory.
    """
    found: dict[Hashable, list[Site]] = {}
    for number, site in enumerate(sites):
        if site.param is None:
            key: Hashable = ("none", number)
        else:
            key = id(site.param) if site.entry is None else memory(site.param)
        found.setdefault(key, []).append(site)
    return list(found.values())


def one_site(shared: list[Site]) -> Site:
    """The first of the sites of one parameter, with what all of them bring."""
    first = shared[0]
    if len(shared) == 1 or first.entry is None:
        return first
    entry = joined([site.entry for site in shared if site.entry is not None])
    return replace(first, entry=entry, sharers=tuple(site.layer for site in shared[1:]))


def get_param_list(layer_list: Any) -> list[tuple[tuple[Tensor, Tensor], list[Tensor]]]:
    """Flatten layers, nested lists and containers into a list of `((param, grad), states)`.

    Parameters without a gradient are left out; one that several layers share comes once, with the sum of the
    gradients that they bring. Any `torch.nn.Module` is a layer too.
    """
    entries = [one_site(shared).entry for shared in by_parameter(layer_sites(layer_list))]
    return [((param, grad), states) for (param, grad), states in filter(None, entries) if grad is not None]
