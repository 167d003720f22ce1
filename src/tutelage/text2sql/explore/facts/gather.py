"""All fillers of the store, in one call."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeAlias

from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.database.schema import Catalog
from tutelage.text2sql.explore.facts.fact import Fact, subject_of
from tutelage.text2sql.explore.facts.from_catalog import facts_from_catalog
from tutelage.text2sql.explore.facts.from_data import draw_sample, facts_from_data
from tutelage.text2sql.explore.facts.from_seeds import facts_from_seeds
from tutelage.text2sql.explore.facts.from_texts import facts_from_descriptions, facts_from_documents
from tutelage.text2sql.explore.facts.roles import Roles
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.seeds import Seed

# What a language model proposes about a database, given what is known already; its facts have the source "model".
Proposer: TypeAlias = Callable[[Catalog, Facts], Iterable[Fact]]


def gather_facts(
    catalog: Catalog,
    *,
    execute: Callable[[str], Result],
    seeds: Sequence[Seed] = (),
    documents: Sequence[Path] = (),
    edited: Facts | None = None,
    propose: Proposer | None = None,
) -> Facts:
    """Gather what can be known of a database without a person.

    Args:
        catalog: The database, with its statistics and descriptions.
        execute: Runs SQL in the sandbox.
        seeds: People's questions with SQL, of any database.
        documents: The user's own texts about it.
        edited: Facts that a person has edited: theirs win.
        propose: A language model's part.

    Raises:
        DataError: A document cannot be read, or a person's fact names what the database does not have.
    """
    theirs = edited.of_persons() if edited is not None else []
    found = [
        *facts_from_descriptions(catalog),
        *facts_from_data(catalog, draw_sample(catalog, execute)),
        *facts_from_documents(catalog, documents),
        *facts_from_seeds(catalog, seeds),
    ]
    # What a column is for is read off its values, those left out that say that nothing is known.
    known = Roles(catalog, execute=execute, facts=Facts([*found, *theirs]))
    roles = {
        (table.name, column.name): known.of(table.name, column.name).role
        for table in catalog.tables
        for column in table.columns
    }
    found += [
        Fact(subject_of(column), "role", roles[table.name, column.name], "data", 0.8)
        for table in catalog.tables
        for column in table.columns
        if (table.name, column.name) not in known.unread
    ]
    found += facts_from_catalog(catalog, roles)
    facts = Facts([*found, *theirs])
    if propose is not None:
        facts = facts.merged(propose(catalog, facts))
    facts.check(catalog)
    return facts
