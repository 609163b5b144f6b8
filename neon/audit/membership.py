"""Parameters of the model that nobody updates, and those of the optimizer that the model has lost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from neon.audit.findings import Finding
from neon.audit.seen import Member, Seen
from neon.messages import quoted, shortened
from neon.stepping.group_names import has_names
from neon.stepping.sharding import is_sharded

_SHARDED = "sharded"


def replaced(seen: Seen) -> Iterator[Finding]:
    """Parameters in whose place the model has others since the optimizer was attached."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, param in _unheld(seen):
        if (before := _before(seen, name)) is not None:
            found[_difference(before.param, param)].append(name)
    for difference, names in found.items():
        text = f"the model has another parameter there since attach ({difference}), and no optimizer updates it."
        late = "Call fully_shard (or parallelize_module) first, then attach." if difference == _SHARDED else (
            "Attach when the model is complete, or call optimizer.add_layers(model)."
        )  # fmt: skip
        yield Finding("replaced", tuple(names), text, late)


def not_given(seen: Seen) -> Iterator[Finding]:
    """Trainable parameters that no optimizer has, and that are not in the place of others."""
    names = [name for name, _ in _unheld(seen) if _before(seen, name) is None]
    if names:
        add = "add_layers(model)" if seen.by_name else "add_param_group"
        yield Finding(
            "not given", tuple(names), "trainable, but no optimizer has it: it stays as it is.",
            f"Call optimizer.{add}, or freeze it: requires_grad_(False), or a key with None.",
        )  # fmt: skip


def lost(seen: Seen) -> Iterator[Finding]:
    """Parameters of the optimizer that the model has no more, and in whose place there is nothing that is trained."""
    names = [member.name for member in _gone(seen) if not _is_trained(seen, _now(seen, member))]
    if names:
        yield Finding(
            "lost", tuple(names), "the optimizer has it, and the model has not: whatever it becomes is used by nobody.",
            "Attach anew, and load the states of the rest; of several models give audit() all.",
        )  # fmt: skip


def tied_since(seen: Seen) -> Iterator[Finding]:
    """Parameters in whose place the model has another one of the optimizer's since, which is elsewhere too."""
    found: dict[str, list[str]] = defaultdict(list)
    uses = Counter(id(param) for _, param in seen.named)
    for member in _gone(seen):
        if (now := _now(seen, member)) is not None and _is_held(seen, now) and uses[id(now)] > 1:
            found[seen.held[id(now)].name].append(member.name)
    for name, tied in found.items():
        yield Finding(
            "tied", tuple(tied), f"tied to {quoted(name)} since attach: the optimizer still has what was there before, "
            "and what was set for it is for nobody.", "Tie first, then attach.",
        )  # fmt: skip


def updated_twice(seen: Seen) -> Iterator[Finding]:
    """Parameters that another optimizer has updated as often."""
    for other in seen.others:
        theirs = {id(param) for group in other.param_groups for param in group["params"]}
        shared = [member for member in seen.members if id(member.param) in theirs and not member.is_frozen]
        names = [m.name for m in shared if 0 < _count(seen.optimizer, m.param) == _count(other, m.param)]
        if names:
            yield Finding(
                "twice", tuple(names), f"another optimizer ({shortened(type(other).__name__)}) has made as many "
                "updates of it.", "Where that is not meant, give each parameter to one of them alone.",
            )  # fmt: skip


# -- what is compared ------------------------------------------------------------------------------


def _unheld(seen: Seen) -> list[tuple[str, Tensor]]:
    """Trainable parameters of the models that no optimizer has, by their first names.

    An audit that nobody has asked for names those alone that have a gradient, which is lost. Of a partition others
    have the rest. Where other optimizers may be hidden, what is in the place of another parameter is nobody's.
    """
    if not seen.strangers or seen.rules.partition is not None:
        return []
    if seen.at_first and not all(map(has_names, seen.groups)):
        return []  # somebody has put one flat parameter in the place of many
    found = [
        (name, param)
        for name, param in seen.strangers
        if seen.left_alone.isdisjoint((id(param), name)) and (seen.asked or param.grad is not None)
        if not (_is_whole(seen, name, param) or _has_master(seen, name, param))
    ]
    optimizers = seen.others if found else ()
    elsewhere = {id(param) for other in optimizers for group in other.param_groups for param in group["params"]}
    found = [(name, param) for name, param in found if id(param) not in elsewhere]
    return [each for each in found if not seen.is_hidden or _before(seen, each[0]) is not None]


def _has_master(seen: Seen, name: str, param: Any) -> bool:
    """Whether somebody has put another parameter into the optimizer, of which the model's is a copy."""
    return name in seen.by_name and seen.at_first.get(name) is param


def _is_whole(seen: Seen, name: str, param: Any) -> bool:
    """Whether a parameter of the model is a whole of which the optimizer has the shards."""
    member = seen.by_name.get(name)
    return member is not None and is_sharded(member.param) and not is_sharded(param) and seen.is_gathered


def _before(seen: Seen, name: str) -> Member | None:
    """What the optimizer has under the name of a parameter of the model, and the model has no more."""
    before = seen.by_name.get(name)
    return before if before is not None and id(before.param) not in seen.name_of else None


def _gone(seen: Seen) -> list[Member]:
    """Trainable parameters that the optimizer has been given of the models, and that are in none now.

    What has a gradient, or has been updated though it was not there, is used by something else.
    """
    if not seen.named or seen.is_gathered:
        return []
    of_models = {id(param) for param in seen.at_first.values()} if seen.attached else seen.held
    return [
        member
        for member in seen.members
        if id(member.param) in of_models and id(member.param) not in seen.name_of
        if not member.is_frozen and member.param.grad is None and (seen.asked or not seen.has_stepped(member))
    ]


def _now(seen: Seen, member: Member) -> Any:
    """What the models have under the name of a parameter of the optimizer."""
    return seen.by_model_name.get(member.bare_name)


def _is_trained(seen: Seen, param: Any) -> bool:
    """Whether there is something that is trained, or that `replaced` and `tied_since` are about."""
    return param is not None and (param.requires_grad or _is_held(seen, param))


def _is_held(seen: Seen, param: Any) -> bool:
    return id(param) in seen.held


def _difference(before: Any, now: Any) -> str:
    """What has happened to a parameter, as far as the new one tells."""
    if is_sharded(now) and not is_sharded(before):
        return _SHARDED
    for word in ("shape", "device", "dtype"):
        if getattr(before, word) != getattr(now, word):
            return f"of another {word}"
    return "of the same shape"


def _count(optimizer: Optimizer, param: Tensor) -> float:
    """How often an optimizer has updated a parameter; 0 where it does not say."""
    state = optimizer.state.get(param, {})
    return float(state.get("step", 0.0)) if isinstance(state, dict) else 0.0
