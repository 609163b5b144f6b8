"""MultiOptimizer: different optimizers for different layers, in one object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.nn.parameter import is_lazy

from neon.arguments import clip_bound, optional_name
from neon.assignment.declared_parts import matrices_of
from neon.assignment.keys import Match, assign, check_key, strongest_key
from neon.assignment.mapped_layers import MappedLayers
from neon.assignment.printed_table import NOTHING, Given, frozen, given, matrices_text, table
from neon.assignment.roles import asks_for_roles, with_roles
from neon.assignment.sites import Site, layer_sites
from neon.messages import kind_of, listed, shortened, shown
from neon.optimizers.optimizer import Optimizer


class MultiOptimizer(Optimizer):
    """Gives each layer the optimizer of the strongest key that fits it: name > pattern > class > default.

    `optimizer_mapping` has the key `"default"` and any number of others: a layer's or parameter's name
    (it covers everything below it), a pattern (`"blocks.*.attention"`, or `"re:..."` for a regular
    expression that must match a whole name; of two that fit, the longer holds), or the name of a
    layer's class or base class (the nearest holds; `"Bias"` means every parameter called `bias`). A value
    is an `Optimizer`, another MultiOptimizer, or None: those layers stay as they are.

    `gradient_clip_norm` clips by one norm over everything held, before each optimizer's own clipping.

    >>> from neon.optimizers import Adam, GradientDescentMomentum
    >>> MultiOptimizer({"default": Adam(), "Bias": GradientDescentMomentum(0.1, 0.9, name="bias")}).keys
    ('default', 'Bias')

    Raises `ValueError` for a mapping without `"default"`, `TypeError` for keys or values of other types.
    """

    _mapped: MappedLayers | None = None  # of the last step

    def __init__(
        self,
        optimizer_mapping: Mapping[str, Optimizer | None],
        name: str | None = None,
        *,
        gradient_clip_norm: float | None = None,
    ) -> None:
        self.name = optional_name("name", name)
        self.gradient_clip_norm = clip_bound("gradient_clip_norm", gradient_clip_norm, norm=True)
        self.optimizer_mapping = optimizer_mapping

    @property
    def optimizer_mapping(self) -> dict[str, Optimizer | None]:
        """The mapping; another one can be set, and holds from the next step on."""
        return vars(self)["optimizer_mapping"]

    @optimizer_mapping.setter
    def optimizer_mapping(self, mapping: Mapping[str, Optimizer | None]) -> None:
        vars(self)["optimizer_mapping"] = _checked(mapping)

    @property
    def _optimizers_by_key(self) -> Mapping[str, Optimizer | None]:
        return self.optimizer_mapping

    @property
    def map_list(self) -> dict[Optimizer, list[Any]] | None:
        """After `optimize`: for each optimizer in the mapping the list of the layers that it was given last.

        These are the layers with parameters, taken out of lists and containers, each once, in the order in which
        they came; those that have no gradient at present are among them, and layers that share a parameter. Not in
        it are layers without parameters, which have no optimizer, layers left as they are by None, and optimizers
        without a layer. Of a MultiOptimizer among the values it lists all layers, and that one's own `map_list`
        those of each optimizer below. Layers that are gone have left the lists, which keep none alive.

        None before the first step; `attach` does not set it.
        """
        return None if self._mapped is None else self._mapped.by_optimizer(self)

    @property
    def keys(self) -> tuple[str, ...]:
        """The mapping's keys."""
        return tuple(self.optimizer_mapping)

    def hyperparameters(self) -> dict[str, Any]:
        """None of its own: they belong to the optimizers it holds."""
        return {}

    def match(self, site: Site) -> Match:
        step = strongest_key(self.optimizer_mapping, site)
        assert step is not None  # "default" fits everything
        chosen = self.optimizer_mapping[step[2]]
        inner = Match((), None) if chosen is None else chosen.match(site)
        norms = () if self.gradient_clip_norm is None else (self,)
        return Match((step, *inner.path), inner.optimizer, norms + inner.norms, (self, *inner.mappings))

    def leaves(self) -> dict[str, tuple[Optimizer, tuple[MultiOptimizer, ...]]]:
        norms = () if self.gradient_clip_norm is None else (self,)
        found: dict[str, tuple[Optimizer, tuple[MultiOptimizer, ...]]] = {}
        for key, optimizer in self.optimizer_mapping.items():
            if isinstance(optimizer, MultiOptimizer):
                for inner, (leaf, inner_norms) in optimizer.leaves().items():
                    found[f"{key}/{inner}"] = (leaf, norms + inner_norms)
            elif optimizer is not None:
                found[key] = (optimizer, norms)
        return found

    @property
    def default_key(self) -> str:
        default = self.optimizer_mapping["default"]
        return f"default/{default.default_key}" if isinstance(default, MultiOptimizer) else "default"

    def table(self, layer_list: Any, *, full: bool = False) -> str:
        """Which optimizer each layer gets, as text, with the key, parameters, bytes of state, rate and decay.

        Layers that are alike and numbered one after another are one row, unless `full`.
        """
        sites = list(layer_sites(layer_list))
        assigned = assign(self, with_roles(sites) if asks_for_roles(self) else sites)
        found = {match.key: _given(match) for _, match in assigned}
        rows = (
            (site, NOTHING if site.param is None else _with_matrices(found[match.key], match, site), _state_bytes(site))
            for site, match in assigned
        )
        return table(rows, full=full)

    def __repr__(self) -> str:
        lines = [f"    {key!r}: {value!r}," for key, value in self.optimizer_mapping.items()]
        clip = "" if self.gradient_clip_norm is None else f", gradient_clip_norm={self.gradient_clip_norm}"
        return "MultiOptimizer({\n" + "\n".join(lines) + "\n}" + clip + ")"


def _given(match: Match) -> Given:
    leaf = match.optimizer
    if leaf is None:
        return frozen(match.key)
    return given(leaf, match.key, {} if leaf._by_hand else leaf.group())  # what values it goes by is its own affair


def _with_matrices(found: Given, match: Match, site: Site) -> Given:
    leaf = match.optimizer
    if leaf is None or not leaf.of_matrices or site.param is None or is_lazy(site.param) or site.param.dim() < 2:
        return found._replace(matrices=site.role.said)
    made_of = matrices_of(leaf, site, site.param)
    return found._replace(matrices=matrices_text(leaf, leaf.group(), made_of, site.param.shape))


def _state_bytes(site: Site) -> int:
    return sum(state.numel() * state.element_size() for state in site.entry[1]) if site.entry else 0


def _checked(mapping: Any) -> dict[str, Optimizer | None]:
    if not isinstance(mapping, Mapping):
        raise TypeError(
            "optimizer_mapping must be a dict from keys to optimizers, such as "
            f'{{"default": Adam()}}. Received: {kind_of(mapping)}.'
        )
    if "default" not in mapping:
        raise ValueError(
            "optimizer_mapping needs the key 'default', for layers that no other key fits. "
            f"Received the keys: {listed(map(shown, mapping))}."
        )
    for key, value in mapping.items():
        check_key("optimizer_mapping", key)
        if value is not None and not isinstance(value, Optimizer):
            raise TypeError(
                f"optimizer_mapping[{shortened(key)!r}] must be an Optimizer, or None to leave those layers as they "
                f"are. Received: {kind_of(value)}."
            )
    return dict(mapping)
