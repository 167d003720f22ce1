"""Whether answers give what the gold queries give: the score of validation, and of a run's end.

This is execution accuracy on the databases at hand (`evaluation/execution.py`). Published protocols, with test
suites or official quirks, are `evaluate.py`'s.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tutelage.text2sql.data.examples import Example
from tutelage.text2sql.database.address import Database
from tutelage.text2sql.database.executor import Executor, Limits, Query, Result
from tutelage.text2sql.evaluation.execution import execution_match, orders_rows
from tutelage.text2sql.results.items import Item

LIMITS = Limits(seconds=30.0, rows=1_000_000)


class ExecutionScorer:
    """Compares results."""

    def __init__(self, databases: Mapping[str, Database], *, executor: Executor) -> None:
        self.databases, self.executor = databases, executor
        self._gold: dict[tuple[Database, str], Result] = {}  # validation asks the same questions again

    def score(self, examples: Sequence[Example], queries: Sequence[str]) -> list[Item]:
        """Run gold and predicted queries, equal ones once and as many at a time as the executor has workers."""
        pairs = []
        for example, sql in zip(examples, queries, strict=True):
            assert example.sql is not None, "a question without a gold query cannot be scored"
            path = self.databases[example.db_id]
            pairs.append((*((path, gold) for gold in (example.sql, *example.alternatives)), (path, sql)))
        # In the order of their first use; a result, which may be large, is dropped after its last.
        uses = Counter(query for pair in pairs for query in pair if query not in self._gold)
        ahead = zip(uses, self.executor.map(Query(path, sql) for path, sql in uses), strict=True)
        results: dict[tuple[Database, str], Result] = {}

        def take(query: tuple[Database, str]) -> Result:
            if query in self._gold:
                return self._gold[query]
            while query not in results:
                ran, result = next(ahead)
                results[ran] = result
            uses[query] -= 1
            return results[query] if uses[query] else results.pop(query)

        items: list[Item] = []
        golds: dict[tuple[Database, str], Result] = {}
        for example, (*gold_queries, predicted) in zip(examples, pairs, strict=True):
            for gold_query in gold_queries:
                golds[gold_query] = take(gold_query)
            found = take(predicted)
            running = [query for query in gold_queries if golds[query].status == "ok"]
            right = None
            if running:  # any of them may be given
                right = any(execution_match(golds[q], found, ordered=orders_rows(q[1])) for q in running)
            items.append(Item(example, predicted[1], right, found.status, found.error))
        self._gold |= golds
        return items


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of right answers, in percent, with its 95 % interval (Wilson's, which holds near 0 and 100, too)."""

    percent: float
    low: float
    high: float
    count: int


def accuracy(items: Iterable[Item]) -> Accuracy:
    """Count right answers; a question whose gold does not run is left out."""
    rights = [item.right for item in items if item.right is not None]
    n = len(rights)
    if n == 0:
        return Accuracy(math.nan, math.nan, math.nan, 0)
    z, share = 1.959964, sum(rights) / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return Accuracy(100 * share, 100 * max(0.0, middle - half), 100 * min(1.0, middle + half), n)
