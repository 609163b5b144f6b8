"""What may be meant, and is mostly not: embeddings under rules of matrices, decay of norms and biases."""

from __future__ import annotations

from collections.abc import Iterator

from neon.assignment.matrix_checks import called
from neon.assignment.roles import PLAIN, with_roles
from neon.assignment.sites import module_sites
from neon.audit.findings import Finding
from neon.audit.seen import Seen


def matrix_rule(seen: Seen) -> Iterator[Finding]:
    """Embeddings and output heads under a rule of hidden matrices, where it got them without the model.

    With the model, attach refuses them, where no key names them.
    """
    of_matrices = {place for place, group in enumerate(seen.groups) if seen.rules.leaf_of(group).of_matrices}
    decided = {
        id(site.param)
        for site, match in seen.assigned
        if (site.role.key or site.role.said) and match.optimizer is not None and match.optimizer.of_matrices
    }
    found = [m for m in seen.members if m.place in of_matrices and id(m.param) not in decided and not m.is_frozen]
    if not found:
        return
    roles = {id(site.param): site.role.said for model in seen.models for site in with_roles(module_sites(model))}
    names = [f"{m.name} ({said})" for m in found if (said := roles.get(id(m.param))) in PLAIN]
    if names:
        kind = called(seen.rules.leaf_of(seen.groups[min(of_matrices)]))
        yield Finding(
            "matrix rule", tuple(names), f"{kind} is for hidden matrices, and this is none.",
            f'MultiOptimizer({{"default": AdamW(), "HiddenMatrix": {kind}()}}) over the whole model.',
        )  # fmt: skip


def decay_of_vectors(seen: Seen) -> Iterator[Finding]:
    """Norms and biases with a weight decay."""
    names = [
        member.name
        for member in seen.members
        if member.param.dim() < 2 and not member.is_frozen and float(member.values.get("weight_decay") or 0.0) > 0
    ]
    if names:
        yield Finding(
            "decay", tuple(names), "norms and biases have weight decay, which pulls scales to 0.",
            'Most leave them out: optimizer.set("weight_decay", 0.0, layers="Bias"), or the class of the norm.',
        )  # fmt: skip
