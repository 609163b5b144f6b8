"""What excludes what: options of an attached optimizer, values of its groups, rules that cannot be attached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from neon.engine.program.options import SCALE
from neon.engine.program.trace import Program
from neon.engine.settings import Settings
from neon.engine.versions import called_by
from neon.messages import listed, received, shortened, shown

_NO_HOST = "the host decides within a step, and a graph that is replayed has no host"
_STILL_AVERAGED = "processes average gradients after these have arrived"
# Options that cannot be had together, and why.
_EXCLUSIVE = (
    ("gradient_clip_previous_norm", "partitioned", "its norm is that of the gradients here"),
    ("skip_nonfinite", "in_backward", "the first parameters are updated before the last gradient is there to look at"),
    ("skip_nonfinite", "capturable", _NO_HOST),
    ("partitioned", "capturable", _NO_HOST),
    ("in_backward", "capturable", _NO_HOST),
    ("share_matrices", "partitioned", "each process has other parameters there, and their matrices to itself"),
    ("share_matrices", "in_backward", "processes would have to update their parameters in one order"),
    ("share_matrices", "capturable", _NO_HOST),
    ("norms_in_backward", "in_backward", "each gradient is gone before the norm of all is known"),
    ("norms_in_backward", "partitioned", _STILL_AVERAGED),
    ("norms_in_backward", "share_matrices", _STILL_AVERAGED),
    ("norms_in_backward", "capturable", "it is for parameters on the CPU"),
    ("statistics", "capturable", "nobody counts the replays of a graph, or reads what each of them left"),
)
_ONLY_IN_BACKWARD = (
    "gradient_clip_previous_norm is for in_backward=True, where the norm over all gradients is not known in time. "
    "Without it, give the optimizer gradient_clip_norm."
)


def check_together(options: Mapping[str, Any]) -> None:
    """Refuse options of which one rules out another; those that were not asked for are None or False."""
    if options["gradient_clip_previous_norm"] is not None and not options["in_backward"]:
        raise ValueError(_ONLY_IN_BACKWARD)
    for one, other, reason in _EXCLUSIVE:
        if options[other] and options[one] not in (None, False):
            raise ValueError(f"{one} cannot be had with {other}=True: {reason}. Leave one of the two out.")


def check_leaf(key: str, leaf: Any) -> None:
    """Refuse a description that has no rule to make a step of."""
    if leaf._by_hand:
        raise TypeError(
            f"{shortened(type(leaf).__name__)} ({shortened(key)}) has an optimize() of its own: it works on layer "
            "lists, by optimize(layer_list, epoch). To attach it, write it as a rule: a static method "
            "rule(w, g, *states, *, lr)."
        )


def check_sums(asked: Any, leaf: Any, program: Program) -> None:
    """Refuse a rule whose numbers are of many parameters where these are updated one by one."""
    if asked.in_backward and (names := program.wide):
        raise ValueError(
            f"{shortened(type(leaf).__name__)} cannot be had with in_backward=True: {listed(names)} of its rule is one "
            "number for many parameters, and there each is updated as soon as its own gradient is known. Leave "
            "in_backward out."
        )


def check_calls(asked: Any, leaf: Any, settings: Settings, *, shared: bool) -> None:
    """Refuse functions of matrices of which other processes hold parts where no host can agree with theirs."""
    if asked.capturable and shared and any(program.calls for program in settings.programs):
        raise ValueError(
            f"{shortened(type(leaf).__name__)} cannot be had with capturable=True for parameters of which other "
            f"processes hold parts: whole matrices are gathered by hosts, {_NO_HOST}. Leave capturable out."
        )


def check_sharing(programs: Iterable[Program]) -> None:
    """Refuse to share out matrices where no rule calls functions of them."""
    if not any(program.calls for program in programs):
        raise ValueError(
            "share_matrices=True shares out the work on matrices, and no rule here calls functions of matrices: every "
            "process updates its parameters itself. Leave it out."
        )


def check_zero(leaf: Any, names: Sequence[str]) -> None:
    """Refuse sums over many parameters, by name, where an optimizer is given its part of them and does not know."""
    if names and called_by("torch.distributed.optim.zero_redundancy_optimizer"):
        raise ValueError(
            f"ZeroRedundancyOptimizer gives each process a part of the parameters: {listed(names)} of "
            f"{shortened(type(leaf).__name__)} would be that of this part alone. Give partitioned=True: "
            "optimizer_class=lambda params, **defaults: rule.attach(params, partitioned=True)."
        )


def check_alike(settings: Sequence[Settings]) -> None:
    """Refuse groups of an optimizer with other values of what a number of all of them is made of."""
    known: dict[tuple[Any, str], Any] = {}
    for each in settings:
        for name, number in each.program.made_of_all.items():
            first = known.setdefault((each.owners[number], name), each.values[name])
            if first is not each.values[name] and first != each.values[name]:
                raise ValueError(
                    f"{number} is one number of all groups of an optimizer, and made of {name}: groups have "
                    f"{shown(first)} and {shown(each.values[name])}. Set it in all of them, or make two optimizers."
                )


def check_own(names: Iterable[str], program: Program) -> None:
    """Refuse values that layers have of their own, and that a number of their whole group is made of."""
    for number in program.new_numbers:
        own = program.made_of(number).intersection(names) if number in program.numbers_kept else ()
        if own:
            raise ValueError(
                f"{listed(sorted(own))} cannot be set for some layers of a group: {number} of "
                f"{shortened(program.name)} is one number of the whole group, and made of it. Give these layers a "
                "group of their own."
            )


def check_flat(leaf: Any, program: Program, params: Sequence[Any], *, partitioned: bool) -> None:
    """Refuse sums over parameters that are parts of flat ones, of which this process does not know the others."""
    norms, sums = program.of_tensors, [] if partitioned else program.wide
    if not (norms or sums or program.calls) or not any(getattr(p, "_fsdp_flattened", False) for p in params):
        return
    if program.calls:
        raise ValueError(
            "FullyShardedDataParallel makes parameters parts of flat ones, which are no matrices: "
            f"{shortened(type(leaf).__name__)} works on whole ones. Use fully_shard."
        )
    part = f"{shortened(listed(norms or sums), 60)} of {shortened(type(leaf).__name__)} would be that of a part alone."
    if norms:
        raise ValueError(
            "FullyShardedDataParallel makes parameters parts of flat ones, and no process knows which tensor of the "
            f"model these are of: {part} Use fully_shard."
        )
    raise ValueError(
        f"FullyShardedDataParallel gives each process a part of the parameters: {part} Give partitioned=True."
    )


def check_scale(key: str, leaf: Any, group: Mapping[str, Any]) -> None:
    """Refuse a multiplier of a rate that there is not."""
    if SCALE in group and SCALE not in leaf.group():
        raise ValueError(
            f"{shortened(type(leaf).__name__)} ({shortened(key)}) has no lr for {SCALE} to multiply. "
            f"{received(SCALE, group[SCALE])} Leave it out."
        )


def check_sizes(params: Iterable[Tensor], what: str) -> None:
    """Refuse parameters that learn their size in the first forward pass, for what needs to know it."""
    if any(map(is_lazy, params)):
        raise ValueError(
            f"{what} needs the sizes of parameters, and some have none yet: their layers infer the number of inputs "
            "from the first batch. Run one forward pass before."
        )


def check_group(asked: Any, group: Mapping[str, Any], norms: Sequence[Any], *, shared: bool) -> None:
    """Refuse values of a group that do not go with what the optimizer was asked for, `in_backward` or `capturable`.

    `norms` are the owners of norms around it; `shared` says whether other processes hold parts of its parameters.
    """
    if len(group.get("outer_clip_norms", ())) < len(norms):
        raise ValueError(
            f"outer_clip_norms must have {len(norms)} bounds, one for each MultiOptimizer around "
            f"{shown(group['optimizer'])} that clips by norm. Received: "
            f"outer_clip_norms={shown(group.get('outer_clip_norms'))}."
        )
    clips = bool(norms) or group["gradient_clip_norm"] is not None
    if asked.in_backward and clips:
        raise ValueError(
            "gradient_clip_norm cannot be had with in_backward=True: the norm over all gradients is known only "
            "when the first parameters have been updated. Use attach(..., gradient_clip_previous_norm=k), the norm "
            "of the step before."
        )
    if not asked.in_backward and group.get("gradient_clip_previous_norm") is not None:
        raise ValueError(_ONLY_IN_BACKWARD)
    if asked.capturable and clips and shared:
        raise ValueError(
            "gradient_clip_norm cannot be had with capturable=True for parameters of which other processes hold parts: "
            f"their norm is summed by the host, {_NO_HOST}. Leave one of the two out."
        )
    if group.get("capturable") and not asked.capturable:
        raise ValueError(
            "capturable=True asks for steps that can be captured in a graph of the device, and this optimizer was "
            "made without: give it to the constructor; in a checkpoint, set it to False in its param_groups."
        )
