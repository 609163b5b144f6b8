"""Parameter groups under rules of matrices: what is known of their parameters, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neon.assignment.description import Description
from neon.assignment.keys import Match
from neon.assignment.matrix_checks import check_matrices, check_parts
from neon.assignment.sites import Site, named_sites, site_name
from neon.attached.targets import Assigned
from neon.stepping.group_names import has_names, named_parameters
from neon.stepping.group_rules import GroupRules

Group = Mapping[str, Any]


def by_name(assigned: Assigned) -> dict[str, Site]:
    """Sites by the names that groups have for their parameters."""
    return {site_name(site): site for site, _ in assigned if site.param is not None}


def check_group_matrices(rules: GroupRules, group: Group) -> None:
    """Refuse a group whose parameters are no matrices, or not those that are declared."""
    leaf = rules.leaf_of(group)
    if leaf.of_matrices:
        check_matrices((Site(name, "", (), (), param), Match((), leaf)) for name, param in named_parameters(group))
        for name, param in named_parameters(group):
            rules.matrices(group, name, param)


def check_keys_of_parts(rules: GroupRules, groups: Sequence[Group]) -> None:
    """Refuse keys of `parts` that fit nothing."""
    found: dict[Description, list[Site]] = {}
    for group in groups:
        if rules.leaf_of(group).of_matrices and has_names(group):
            sites = found.setdefault(rules.leaf_of(group), [])
            sites += [rules.sites.get(name) or named_sites([(name, p)])[0] for name, p in named_parameters(group)]
    for leaf, sites in found.items():
        check_parts(leaf, sites)
