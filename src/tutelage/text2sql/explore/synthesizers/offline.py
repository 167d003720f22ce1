"""Questions and SQL without a key, a server or a GPU: a typed grammar over the walk's join tree."""

from collections.abc import Callable

from tutelage.core.randomness import generator
from tutelage.text2sql.database.catalog import Catalog
from tutelage.text2sql.database.executor import Result
from tutelage.text2sql.explore.facts.store import Facts
from tutelage.text2sql.explore.knowledge import Knowledge
from tutelage.text2sql.explore.pair import Candidate, Json, Operator, Pair, Walk
from tutelage.text2sql.explore.synthesizers.base import Synthesizer
from tutelage.text2sql.explore.synthesizers.offline_grammar import Grammar
from tutelage.text2sql.explore.synthesizers.offline_realise import realise
from tutelage.text2sql.explore.synthesizers.offline_tree import Query, from_json, to_json


class Offline(Synthesizer):
    """Grows a query tree by one operator a level, writes it as SQL and says it in English.

    Literals come from real rows, column roles from statistics. The same (seed, walk) or (seed, parent) gives the
    same candidates.
    """

    def __init__(
        self,
        *,
        width: int,
        catalog: Catalog,
        facts: Facts,
        knowledge: Knowledge,
        execute: Callable[[str], Result],
        seed: int,
    ) -> None:
        """Read nothing yet.

        Args:
            width: Candidates a parent is extended to, at most.
            catalog: The database's structure.
            facts: What its names, columns and values mean.
            knowledge: Passed to every synthesizer; this one has its own shapes of queries.
            execute: Runs SQL in the sandbox: the synthesizer looks at values with it.
            seed: Names the choices.
        """
        self._width, self._seed = width, seed
        self._grammar = Grammar(catalog, execute=execute, facts=facts)

    def begin(self, walk: Walk) -> list[Candidate]:
        """Propose a projection of each of the walk's tables."""
        rng = generator(self._seed, "offline", walk.id)
        queries = list(dict.fromkeys(self._grammar.begin(walk, rng)))
        return [self._candidate(query, (), f"{walk.id}/{index}") for index, query in enumerate(queries)]

    def extend(self, parent: Pair, walk: Walk) -> list[Candidate]:
        """Propose up to ``width`` pairs with one operator more."""
        query = from_json(dict(parent.state))
        # A pair may be visited again under another walk's id, for other proposals.
        rng = generator(self._seed, "offline", walk.id, parent.id)
        candidates: dict[str, Candidate] = {}
        for operator, grown in self._grammar.extend(query, walk, parent.operators, rng):
            candidate = self._candidate(
                grown, (*parent.operators, operator), f"{walk.id}/{parent.id}/{len(candidates)}"
            )
            candidates.setdefault(candidate.sql, candidate)
            if len(candidates) == self._width:
                break
        return list(candidates.values())

    def summary(self) -> dict[str, Json]:
        """Name the columns that could not be read, so that nothing was asked of them."""
        unread = self._grammar.roles.unread
        named: list[Json] = [f"{table}.{column} ({why})" for (table, column), why in unread.items()]
        return {"columns that could not be read": named} if named else {}

    def _candidate(self, query: Query, operators: tuple[str, ...] | tuple[Operator, ...], key: str) -> Candidate:
        grammar, rng = self._grammar, generator(self._seed, "wording", key)
        question = realise(query, naming=grammar.naming, roles=grammar.roles, rng=rng)
        sql = grammar.writer.write(query)
        return Candidate(question, sql, len(operators) + 1, tuple(operators), to_json(query))
