"""Questions that list rows, reckon over all of them, combine two sets of them, or rank them."""

from collections.abc import Sequence

from tutelage.text2sql.explore.synthesizers.naming import VAGUE
from tutelage.text2sql.explore.synthesizers.offline_phrases import SHOW, Phrases, led
from tutelage.text2sql.explore.synthesizers.offline_tree import Aggregate, Combine, Condition, Cte, Order, Ref, Window
from tutelage.text2sql.explore.synthesizers.offline_wording import ADJECTIVES, plural_verb
from tutelage.text2sql.explore.words import article, listed, plural_phrase


class Lists(Phrases):
    """Says queries without groups."""

    def listed(self) -> str:
        """Columns of rows."""
        query = self.query
        if query.limit is not None and query.order is not None:
            return self._few(query.order, query.limit)
        own, rest = self.columns(query.select, many=True)
        own_one, rest_one = self.columns(query.select, many=False)
        tail = ""
        if query.order and isinstance(query.order.by, Ref):
            said = self._ordered_by(query.order.by)
            tail = ", " + self.clauses.order(self.nodes, query.order.by, descending=query.order.descending, said=said)
        verb = self.pick(SHOW)
        if query.distinct and not self._identified():
            return self._distinct(own, verb, tail)
        # "The IDs of the countries and their makers" might be the IDs of both.
        joints = ("together with", "along with", *(("and",) if rest.startswith("the ") else ()))
        with_rest = f" {self.pick(joints)} {rest}" if rest else ""
        if not own:
            each = self.one(query.where)
            return f"For each {each}, {verb.lower()} {rest_one}{tail}."
        options = []
        rows = self.many(query.where, determined=True)
        simple = not with_rest or len(query.where) == 0
        if simple:
            options += [f"{verb} the {own} of {rows}{with_rest}{tail}."] * 3
            if not tail:
                be = "is" if len(query.select) == 1 and own == own_one and not plural_verb(own) else "are"
                options += [f"What {be} the {own} of {rows}{with_rest}?"] * 2
            if not tail and query.where and not rest:
                options += [self._which(own)]
        if len(query.select) > 1 and self.rows.one != self.rows.many:
            comma = "," if query.where else ""
            and_rest = f"{comma} {self.pick(('and', 'along with', 'as well as'))} {rest_one}" if rest_one else ""
            if query.subject == 0:
                options += [
                    f"For each {self.one(query.where)}, {verb.lower()} {self.rows.its} {own_one}{and_rest}{tail}."
                ]
                options += [f"{verb} the {own_one} of each {self.one(query.where)}{and_rest}{tail}."]
        if not options:
            options = [f"{verb} the {own} of {rows}, {self.pick(joints)} {rest}{tail}."]
        plain = not rest and not query.where and not tail and not self.bound()
        if plain and len(query.select) == 1 and self.rows.person:
            options += [f"What {self.pick(('are the', 'are the'))} {own} of the {self.rows.many}?"]
        return self.pick(options)

    def _identified(self) -> bool:
        """Whether what is listed tells the subject's rows apart, so that there are no repetitions to speak of."""
        mine = {ref.column for ref in self.query.select if ref.node == self.view}
        table = self.nodes[self.view].table
        label = self.naming.label(table)
        if any(self.clauses.roles.of(table, column).unique for column in mine):
            return True
        return len(label) > 1 and mine >= set(label)  # first and last name

    def _which(self, own: str) -> str:
        """``Which singers are older than 30? List their names.``"""
        modifiers = self.modifiers(self.query.where) + self.bound()
        kind, text = modifiers[0]
        rest = self.clauses.attach("", modifiers[1:])
        ask = f"{self.pick(('List', 'Show', 'Give', 'Return'))} their {own}."
        if kind == "whose" or rest:
            return f"{self.pick(SHOW)} the {own} of the {self.clauses.attach(self.rows.many, modifiers)}."
        predicate = {"plain": f"are {text}", "with": f"have {text}", "that": text}[kind]
        return f"Which {self.rows.many} {predicate}? {ask}"

    def _distinct(self, own: str, verb: str, tail: str) -> str:
        query = self.query
        different = self.pick(("different", "distinct", "unique"))
        rows = self.many(query.where)
        if len(query.select) > 1:
            own_one, _ = self.columns(query.select, many=False)
            return f"{verb} the {different} combinations of {own_one} {self.pick(('of', 'among'))} {rows}{tail}."
        options = [f"{verb} the {different} {own} of {rows}{tail}."]
        if not tail:
            options += [f"What are the {different} {own} of {rows}?"]
            if not query.subject and not query.where:
                options += [f"What {different} {own} do {rows} have?", f"What {different} {own} occur among {rows}?"]
        return self.pick(options)

    def _ordered_by(self, ref: Ref) -> str:
        """What a list is sorted by, with its owner where that is another thing."""
        path = self.clauses.path(self.nodes, self.view, ref.node)
        said = self.clauses.column(self.nodes, ref)
        if path:
            return f"{path[-1].one} {said}" if said.lower() in VAGUE else f"{said} of the {path[-1].one}"
        others = [other for other in self.query.select if other.node != ref.node]
        if others and (
            said.lower() in VAGUE or any(self.clauses.column(self.nodes, other) == said for other in others)
        ):
            return f"{self.rows.one} {said}"
        return said

    def _few(self, order: Order, limit: int) -> str:
        query = self.query
        rows = self.superlative(order, limit, query.where)
        own, rest = self.columns(query.select, many=limit > 1)
        with_rest = f" and {rest}" if rest else ""
        be = "are" if limit > 1 or len(query.select) > 1 else "is"
        if rest and (not own or " among " in rows):
            # What "its" stands for comes first.
            its = "their" if limit > 1 else self.rows.its
            what = f"{its} {own} and {rest}" if own else rest
            return self.pick((f"For {rows}, what {be} {what}?", f"For {rows}, {self.pick(SHOW).lower()} {what}."))
        what = f"the {own} of {rows}{with_rest}"
        return self.pick((f"What {be} {what}?", f"{self.pick(SHOW)} {what}.", f"Find {what}."))

    def aggregated(self) -> str:
        """Aggregates over all rows."""
        query = self.query
        first = query.aggregates[0]
        rows = self.many(query.where)
        the_rows = self.many(query.where, determined=True)
        counts = self._counts_rows(first)
        if len(query.aggregates) == 1:
            if counts:
                how_many = self.how_many(self.modifiers(query.where) + self.bound())
                total = f"What is the total number of {rows}?"
                options = [*[f"{how_many}?"] * 3, f"Count the {rows}.", f"What is the number of {rows}?"]
                return self.pick([*options, f"Find the number of {rows}.", total])
            said = self.clauses.aggregate(self.nodes, first, self.rows)
            ask = (
                self.pick(("Find", "Calculate", "Give", "Show", "Compute"))
                if first.function in ("avg", "sum")
                else "Find"
            )
            be = "are" if plural_verb(said) else "is"
            options = [f"What {be} the {said} of {the_rows}?"] * 3 + [f"{ask} the {said} of {the_rows}."]
            if first.function == "count" and first.distinct and first.ref is not None:
                said = plural_phrase(self.clauses.full(self.nodes, first.ref))
                different = self.pick(("different", "distinct"))
                asked = f"are there among {the_rows}" if query.where else f"do the {rows} have"
                options = [f"How many {different} {said} are there among {the_rows}?",
                           f"How many {different} {said} {asked}?",
                           f"Count the {different} {said} of {the_rows}."]  # fmt: skip
            elif query.where:
                options += [f"Among {rows}, what {be} the {said}?"]
            return self.pick(options)
        if counts:
            others = [self.clauses.aggregate(self.nodes, part, self.rows) for part in query.aggregates[1:]]
            return self.pick((
                f"{self.how_many(self.modifiers(query.where) + self.bound())}, and what is their {listed(others)}?",
                f"Find the number of {rows}, as well as their {listed(others)}.",
            ))  # fmt: skip
        said = self._aggregates_text(query.aggregates)
        return self.pick(
            (f"What are the {said} of {the_rows}?", f"{self.pick(('Find', 'Show', 'Give'))} the {said} of {the_rows}.")
        )

    def _counts_rows(self, aggregate: Aggregate) -> bool:
        """Whether an aggregate counts the things themselves (by their key, where a join could repeat them)."""
        if aggregate.function != "count":
            return False
        if aggregate.ref is None:
            return True
        return aggregate.ref.node == self.query.subject != 0 and aggregate.distinct

    def _aggregates_text(self, aggregates: Sequence[Aggregate]) -> str:
        """Several aggregates; of one column they share its name: ``minimum and maximum age``."""
        refs = {aggregate.ref for aggregate in aggregates}
        words = {"min": "minimum", "max": "maximum", "avg": "average", "sum": "total"}
        if len(refs) == 1 and None not in refs and all(aggregate.function in words for aggregate in aggregates):
            ref = next(ref for ref in refs if ref is not None)
            if self.clauses.profile(self.nodes, ref).role not in ("date", "year"):
                said = self.clauses.column(self.nodes, ref)
                return f"{listed([words[aggregate.function] for aggregate in aggregates])} {said}"
        return listed([self.clauses.aggregate(self.nodes, aggregate, self.rows) for aggregate in aggregates])

    def combined(self, combine: Combine) -> str:
        """Rows or classes of rows that two conditions give together."""
        query = self.query
        base, first, second = query.where[:-1], query.where[-1], combine.where
        own, _ = self.columns(query.select, many=True)
        one_column = len(query.select) == 1
        verb = self.pick(SHOW)
        if query.subject == 0 and one_column and self._value_of_rows(query.select[0]):
            return self._classes(combine, verb)
        if query.subject and combine.op != "union":
            return self._both_or_not(combine, verb, own)
        left = self.clauses.attach("", self.modifiers([first])).strip()
        right = self.clauses.attach("", self.modifiers([second])).strip()
        # What holds for both sides is said before them: after "a or b" it would hold for one.
        lead = f"{self.pick(('Among', 'Considering only'))} {self._rows_where(base)}, " if base else ""
        those = "those" if base else f"the {self.rows.many}"
        if combine.op == "union":
            text = self.pick(
                (f"{verb} the {own} of {those} {left} or {right}.", f"what are the {own} of {those} {left} or {right}?")
            )
        else:
            text = self.pick(
                (
                    f"{verb} the {own} of {those} {left}, except those {right}.",
                    f"what are the {own} of {those} {left}, leaving out those {right}?",
                )
            )
        return led(lead, text)

    def _classes(self, combine: Combine, verb: str) -> str:
        """A class's values: ``Which countries have both singers older than 40 and singers younger than 25?``"""
        base = self.query.where[:-1]
        lead = f"Considering only {self._rows_where(base)}, " if base else ""
        key = plural_phrase(self.group_name(self.query.select[0]))
        left, right = self._rows_where([self.query.where[-1]]), self._rows_where([combine.where])
        both = {
            "intersect": f"both {left} and {right}",
            "union": f"{left} or {right}",
            "except": f"{left} but no {right}",
        }[combine.op]
        return led(lead, self.pick((f"Which {key} have {both}?", f"{verb} the {key} that have {both}.")))

    def _both_or_not(self, combine: Combine, verb: str, own: str) -> str:
        """``that have both a cat and a dog``, ``that have a cat but no dog``."""
        base, first, second = self.query.where[:-1], self.query.where[-1], combine.where
        noun, inner = self.clauses.across(self.nodes, self.query.subject)
        one = self.clauses.attach(noun.one, self.clauses.modifiers(self.nodes, [first], inner))
        other = self.clauses.attach(noun.one, self.clauses.modifiers(self.nodes, [second], inner))
        rows = self._rows_where(base)
        joint = " and" if base else ""
        if combine.op == "intersect":
            both = f"{article(one)} {one} and {article(other)} {other}"
            return f"{verb} the {own} of the {rows}{joint} that have both {both}."
        return f"{verb} the {own} of the {rows}{joint} that have {article(one)} {one} but no {other}."

    def _value_of_rows(self, ref: Ref) -> bool:
        """Whether a column is a class that rows belong to, rather than a property of one row."""
        return self.clauses.profile(self.nodes, ref).role in ("category", "year", "ordinal") or ref.node != 0

    def _rows_where(self, conditions: Sequence[Condition]) -> str:
        return self.clauses.attach(self.rows.many, self.modifiers(conditions))

    def over_few(self, cte: Cte) -> str:
        """An aggregate over the rows that order and limit leave."""
        query = self.query
        assert query.order is not None and query.limit is not None and cte.aggregate is not None
        rows = self.superlative(query.order, query.limit, query.where)
        said = self.clauses.aggregate(self.nodes, cte.aggregate, self.rows)
        return self.pick(
            (f"What is the {said} of {rows}?", f"Find the {said} of {rows}.", f"Calculate the {said} of {rows}.")
        )

    def ranked(self, window: Window) -> str:
        """Rows beside their rank or their class's average, or the first of each class."""
        query = self.query
        assert window.ref is not None
        own, rest = self.columns(query.select, many=False)
        own = f"the {own}" if own else ""
        shown = listed([part for part in (own, rest) if part])
        joint = ", and" if " and " in shown else " and"
        said, profile = self.clauses.column(self.nodes, window.ref), self.clauses.profile(self.nodes, window.ref)
        by = self.group_name(window.by) if window.by else ""
        each = self.one(query.where)
        if window.kind == "average":
            if not by:
                verb = self.pick(SHOW)
                return f"{verb} {shown} of each {each} next to the average {said} of all such {self.rows.many}."
            verb = self.pick(SHOW)
            options = [f"For each {each}, show {shown}{joint} the average {said} of all such {self.rows.many} "
                       f"with the same {by}."]  # fmt: skip
            if not query.where and not rest:  # the average is over what the conditions leave
                options += [f"{verb} {shown} of each {each} next to the average {said} for {self.rows.its} {by}."]
            return self.pick(options)
        adjective = ADJECTIVES.get(said.lower())
        if window.kind == "rank":
            first = self.clauses.extreme(said, profile, highest=window.descending)
            start = (adjective[2] if window.descending else adjective[3]) if adjective else first
            within = f" within {self.rows.its} {by}" if by else ""
            among = f" among these {self.rows.many}" if query.where else ""
            verb, rank = (
                self.pick(SHOW),
                f"{self.rows.its} rank by {said}{within}{among}, with the {start} ranked first",
            )
            if rest:
                return f"For each {each}, {verb.lower()} {shown}, and {rank}."
            options = [f"{verb} {shown} of each {each}, and {rank}."]
            if not query.where:  # "rank those whose … is at least 5 by age" loses its way
                first_of = f"Rank the {self.rows.many} by {said}{within}, {start} first"
                options += [f"{first_of}, and show {shown} of each with the rank."]
            return self.pick(options)
        if adjective:
            best = f"the {adjective[2 if window.descending else 3]} {self.clauses.attach(self.rows.one, [])}"
        else:
            best = f"the {self.rows.one} with the {self.clauses.extreme(said, profile, highest=window.descending)}"
        among = f" among {self.many(query.where)}" if query.where else ""
        # "For each country" shows the country already.
        shown_refs = [ref for ref in query.select if ref != window.by]
        own, rest = self.columns(shown_refs, many=False)
        own_text = f"the {own}" if own else rest
        rest_text = f" and {rest}" if own and rest else ""
        be = "is" if len(shown_refs) == 1 else "are"
        options = [f"For each {by}, show {own_text} of {best}{among}{rest_text}."]
        if not among:
            options += [f"What {be} {own_text} of {best} for each {by}{rest_text}?"]
        return self.pick(options)
