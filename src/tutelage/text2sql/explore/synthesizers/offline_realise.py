"""From the tree to a question in English."""

import re

import numpy as np

from tutelage.text2sql.explore.facts.roles import Roles
from tutelage.text2sql.explore.synthesizers.naming import Naming
from tutelage.text2sql.explore.synthesizers.offline_clauses import Clauses
from tutelage.text2sql.explore.synthesizers.offline_groups import Groups
from tutelage.text2sql.explore.synthesizers.offline_lists import Lists
from tutelage.text2sql.explore.synthesizers.offline_tree import Query


def realise(query: Query, *, naming: Naming, roles: Roles, rng: np.random.Generator) -> str:
    """Say a tree as a question; the generator chooses the wording."""
    clauses = Clauses(naming, roles, rng, "'" if rng.random() < 0.5 else '"')
    text = _grouped(Groups(query, clauses)) if query.grouped else _listed(Lists(query, clauses))
    text = re.sub(r"\s+", " ", text).strip().replace(" ,", ",").replace(" .", ".").replace(" ?", "?")
    return text[:1].upper() + text[1:]


def _grouped(groups: Groups) -> str:
    if groups.query.cte:
        return groups.over_groups(groups.query.cte)
    return groups.shares() if groups.query.window else groups.grouped()


def _listed(lists: Lists) -> str:
    query = lists.query
    if query.cte:
        return lists.over_few(query.cte)
    if query.window:
        return lists.ranked(query.window)
    if query.combine:
        return lists.combined(query.combine)
    return lists.aggregated() if query.aggregates else lists.listed()
