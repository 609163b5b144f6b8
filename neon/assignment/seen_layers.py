"""What the walk over a list of layers has read, so that the next step need only ask whether it would read the same."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from operator import call, contains, itemgetter, methodcaller
from typing import Any

from torch import Tensor, nn

from neon.engine.tensors.watch import same_objects

# How a module answers what it has. Where a class has others than torch's, only its modules know what they would say.
_TORCHS = ("__getattr__", "__getattribute__", "parameters", "named_parameters", "_named_members", "named_modules")
_ANSWERS = ("get_params", "parameters", "named_parameters")  # what a module may have in the place of its class's
_DEEPEST = 64  # so many modules within each other; with more they stand in a circle
_NAMES = {str, type(None)}
_values, _parameters, _modules = methodcaller("values"), itemgetter("_parameters"), itemgetter("_modules")


class UnsureError(Exception):
    """What a walk would find cannot be told without walking."""


class _Nothing:
    """Stands for a module or a parameter that is None, and can be referred to weakly."""


_NOTHING = _Nothing()


class Glance:
    """What a walk over layers goes by, read in as few calls as there are kinds of it.

    `layers` are those that are asked for their parameters, in the order of the walk, `parameters` those of all other
    modules. `facts` are compared by value, `objects` and `seen` by identity: the latter, layers and parameters, are
    not to be kept.

    Raises `UnsureError` for what may answer differently each time.
    """

    def __init__(self, layers: Any) -> None:
        is_list = isinstance(layers, (list, tuple))
        self.layers: list[Any] = []
        self.parameters: list[Tensor] = []
        self.facts: list[Any] = [is_list]  # a module that stands alone has no name of its own
        self.objects: list[Any] = []
        self.seen: list[Any] = []
        self._modules: list[nn.Module] = []
        self._kinds: dict[type, bool] = {}  # of modules: whether they are asked for their parameters
        try:
            self._gather(layers if is_list else [layers])
            self._read_modules()
        except (AttributeError, KeyError, RecursionError, TypeError) as error:
            raise UnsureError from error

    def _gather(self, layers: Sequence[Any]) -> None:
        kinds, modules = self._kinds, self._modules
        for layer in layers:
            asked = kinds.get(type(layer))
            if asked is not None or isinstance(layer, nn.Module):
                modules.append(layer)
                if asked or (asked is None and self._is_asked(type(layer))):
                    self.layers.append(layer)
            elif isinstance(layer, (list, tuple)):
                self._gather(layer)
            else:
                self._read(layer)

    def _read(self, layer: Any) -> None:
        """What a walk reads of a layer that is no module, or of a container."""
        kind, name, inner = type(layer), getattr(layer, "name", None), getattr(layer, "layers", None)
        is_container = isinstance(inner, (list, tuple))
        if isinstance(layer, type) or is_container is hasattr(layer, "get_params"):
            raise UnsureError
        self.seen.append(layer)
        self.objects += (kind, kind.__mro__)
        # Where it stands among the modules, and what it is called.
        self.facts += (len(self._modules), name if isinstance(name, str) else None, kind.__name__)
        if is_container:
            self.facts.append("from here on")
            self._gather(inner)
            self.facts += ("to here", len(self._modules))
        else:
            self.layers.append(layer)

    def _is_asked(self, kind: type) -> bool:
        asked = self._kinds.get(kind)
        if asked is None:
            get_params = getattr(kind, "get_params", None)
            asked = get_params is not None and get_params.__module__ != "neon.layers.layer"
            self._kinds[kind] = asked
            if any(getattr(kind, word) is not getattr(nn.Module, word) for word in _TORCHS):
                raise UnsureError
            name = getattr(kind, "name", None)
            if type(name) not in _NAMES:
                raise UnsureError
            self.facts += (name, *[each.__name__ for each in kind.__mro__])
            self.objects.append(get_params)
        return asked

    def _read_modules(self) -> None:
        """Modules, those within them, and so on."""
        level, within = self._modules, False
        self.seen += level
        for _ in range(_DEEPEST):
            if not level:
                return
            own, kinds = [*map(vars, level)], [*map(type, level)]
            names = [*map(dict.get, own, repeat("name"))]
            if not {*map(type, names)} <= _NAMES:
                raise UnsureError
            if any(any(map(contains, own, repeat(word))) for word in _ANSWERS):
                raise UnsureError
            if within and any(map(self._is_asked, dict.fromkeys(kinds))):
                raise UnsureError
            self.objects += kinds
            self.objects += names
            self.parameters += self._read_dicts([*map(_parameters, own)])
            level, within = self._read_dicts([*map(_modules, own)]), True
        raise UnsureError

    def _read_dicts(self, dicts: Sequence[Mapping[str, Any]]) -> list[Any]:
        """The values of all, but for None."""
        self.facts += map(len, dicts)
        self.objects += chain.from_iterable(dicts)
        values = [_NOTHING if value is None else value for value in chain.from_iterable(map(_values, dicts))]
        self.seen += values
        return [value for value in values if value is not _NOTHING]


class SeenLayers:
    """What a glance has read, kept to be compared; it holds no layer and no parameter.

    Raises `UnsureError` where one cannot be referred to weakly.
    """

    def __init__(self, glance: Glance) -> None:
        self._facts, self._objects = glance.facts, glance.objects
        try:
            self._seen = [*map(weakref.ref, glance.seen)]
        except TypeError as error:
            raise UnsureError from error

    def fits(self, glance: Glance) -> bool:
        """Whether another glance has read the same."""
        return (
            self._facts == glance.facts
            and same_objects(glance.objects, self._objects)
            and same_objects(glance.seen, [*map(call, self._seen)])
        )
