"""Questions about groups: what each has, which has most, and what is asked of the groups' values in turn."""

from collections.abc import Sequence
from dataclasses import dataclass

from tutelage.text2sql.explore.synthesizers.naming import Noun
from tutelage.text2sql.explore.synthesizers.offline_phrases import SHOW, Phrases, led
from tutelage.text2sql.explore.synthesizers.offline_tree import Aggregate, Comparison, Condition, Cte, Order, Ref
from tutelage.text2sql.explore.synthesizers.offline_wording import Modifier, singular_verbs
from tutelage.text2sql.explore.words import listed, plural_phrase, spoken_number

_THRESHOLD: dict[Comparison, tuple[str, ...]] = {
    ">=": ("at least {}",),
    ">": ("more than {}",),
    "<": ("fewer than {}",),
    "<=": ("at most {}",),
    "=": ("exactly {}",),
}


@dataclass(frozen=True, slots=True)
class Key:
    """What the groups are called; ``noun`` where each group is a thing of its own, such as a country."""

    one: str
    many: str
    noun: Noun | None
    shown: str  # what is listed of each: "name"


class Groups(Phrases):
    """Says queries with groups."""

    def key(self) -> Key:
        """What the groups are called."""
        refs = self.query.select
        node = refs[0].node
        labels = [self.clauses.column(self.nodes, ref) for ref in refs]
        table = self.nodes[node].table
        entity = node != 0 and all(
            ref.node == node
            and (ref.column in self.naming.label(table) or self.clauses.roles.of(table, ref.column).unique)
            for ref in refs
        )
        if entity:
            noun = self.clauses.noun(self.nodes, node)
            if self.naming.same_thing(self.nodes[0].table, self.nodes[node].columns):
                noun = self.naming.noun(self.nodes[0].table)
            return Key(noun.one, noun.many, noun, listed(labels))
        said = [self.group_name(ref) for ref in refs]
        if len(said) == 1:
            return Key(said[0], plural_phrase(said[0]), None, said[0])
        return Key(f"combination of {listed(said)}", f"combinations of {listed(said)}", None, listed(said))

    def _key_conditions(self) -> tuple[list[Condition], list[Condition]]:
        """Conditions on the groups' own things, and those on the rows within them."""
        node = self.query.select[0].node
        if not node or self.key().noun is None:
            return [], list(self.query.where)
        mine = [
            part for part in self.query.where if self.clauses.path(self.nodes, node, self.node_of(part)) is not None
        ]
        return mine, [part for part in self.query.where if part not in mine]

    def _rows_in_groups(self, conditions: Sequence[Condition]) -> str:
        return self.clauses.attach(self.rows.many, self.clauses.modifiers(self.nodes, conditions, self.view))

    def grouped(self) -> str:
        """Aggregates of each group."""
        query, key = self.query, self.key()
        mine, inner = self._key_conditions()
        node = query.select[0].node
        key_modifiers = self.clauses.modifiers(self.nodes, mine, node, more=query.having is not None)
        rows = self._rows_in_groups(inner)
        lead = ""
        crowded = query.having or query.order or len(query.aggregates) > 1
        if inner and (crowded or self.clauses.rng.random() < 0.25):
            lead = f"{self.pick(('Considering only', 'Among', 'Looking only at'))} {rows}, "
            rows = self.rows.many
        if query.having:
            key_modifiers = [*key_modifiers, self._having(rows, key)]
        what = self._group_values(query.aggregates, rows, key)
        if query.limit is not None and query.order is not None:
            return led(lead, self._group_superlative(query.order, query.limit, key, key_modifiers, rows, what))
        one = singular_verbs(self.clauses.attach(key.one, key_modifiers))
        tail = f", {self._group_order(query.order)}" if query.order else ""
        verb = self.pick(SHOW)
        its_shown = f"the {key.shown} and " if key.noun else ""
        shown_key = f"the {key.shown} of each {one}" if key.noun else f"each {one}"
        options = [
            f"{verb} {shown_key} {self.pick(('and', 'together with', 'along with'))} {what}{tail}.",
            f"For each {one}, {self.pick(('show', 'find', 'give', 'list', 'report'))} {its_shown}{what}{tail}.",
        ]
        if len(query.aggregates) == 1 and not tail and not key_modifiers:
            if query.aggregates[0].ref is None:
                options += self._counts(key, rows, [] if lead else inner)
            elif not key.noun and (lead or not inner):
                options += [f"What is {what} for each {one}?"] * 2
        return led(lead, self.pick(options))

    def _counts(self, key: Key, rows: str, conditions: Sequence[Condition]) -> list[str]:
        """Ways to ask how many rows each group has."""
        if key.noun:
            ask = self.pick(("Show", "Give", "List"))
            return [f"How many {rows} does each {key.one} have? {ask} the {key.one} {key.shown} and the number."] * 2
        how_many = self.how_many(self.clauses.modifiers(self.nodes, conditions, self.view))
        if conditions:
            # "Countries that have a city for each government form" would be another thing.
            return [f"For each {key.one}, {how_many}?"] * 3
        return [
            f"How many {rows} are there for each {key.one}?",
            f"For each {key.one}, {how_many}?",
            f"What is the number of {rows} for each {key.one}?",
            f"Count the {rows} for each {key.one}.",
        ]

    def _group_values(self, aggregates: Sequence[Aggregate], rows: str, key: Key) -> str:
        """The groups' values: ``the number of singers and their average age``."""
        parts = []
        for index, aggregate in enumerate(aggregates):
            if aggregate.ref is None:
                parts.append(f"the number of {rows}")
                continue
            said = self.clauses.aggregate(self.nodes, aggregate, self.rows)
            if index:
                parts.append(f"their {said}")
            elif key.noun:
                parts.append(f"the {said} of {key.noun.its} {rows}")
            else:
                parts.append(f"the {said} of {rows if len(aggregates) == 1 else 'the ' + rows}")
        return listed(parts)

    def _having(self, rows: str, key: Key) -> Modifier:
        having = self.query.having
        assert having is not None
        value = self.clauses.value(having.value)
        if having.aggregate.ref is None:
            number = int(float(having.value))
            said = value if self.clauses.rng.random() < 0.5 else spoken_number(number)
            rows = _singular_first(rows, self.rows) if number == 1 else rows
            threshold = self.pick(_THRESHOLD[having.op]).format(said)
            return self._pick_modifier(
                [("with", f"{threshold} {rows}"), ("that", f"have {threshold} {rows}")]
                if key.noun
                else [("with", f"{threshold} {rows}")]
            )
        said = self.clauses.aggregate(self.nodes, having.aggregate, self.rows)
        how = {">": "above", "<": "below", ">=": "at least", "<=": "at most"}.get(having.op, "")
        if having.aggregate.function == "count":
            counted = said.removeprefix("number of ")
            return "with", f"{self.pick(_THRESHOLD[having.op]).format(value)} {counted} among its {self.rows.many}"
        if having.op in (">=", "<="):
            return "plain", f"where the {said} of {rows} is {how} {value}"
        return (
            "plain",
            f"where the {said} of {rows} is {self.pick((how, 'more than' if how == 'above' else 'less than'))} {value}",
        )

    def _pick_modifier(self, options: list[Modifier]) -> Modifier:
        return options[int(self.clauses.rng.integers(len(options)))]

    def _group_order(self, order: Order) -> str:
        if isinstance(order.by, Ref):
            said = self.clauses.column(self.nodes, order.by)
            return self.clauses.order(self.nodes, order.by, descending=order.descending, said=said)
        way, ends = ("descending", "highest to lowest") if order.descending else ("ascending", "lowest to highest")
        said = self.clauses.aggregate(self.nodes, order.by, self.rows)
        if order.by.ref is None:
            few, many = f"the fewest {self.rows.many}", f"the most {self.rows.many}"
            first, last = (many, few) if order.descending else (few, many)
            return self.pick(
                (f"from {first} to {last}", f"sorted by the {said} from {ends}", f"in {way} order of the {said}")
            )
        return self.pick((f"in {way} order of the {said}", f"sorted by the {said} from {ends}"))

    def _most(self, order: Order, rows: str) -> str:
        """What the first group has: ``the most singers``, ``the highest average age of singers``."""
        by = order.by
        assert isinstance(by, Aggregate)
        if by.ref is None:
            return f"the {'most' if order.descending else 'fewest'} {rows}"
        said = self.clauses.aggregate(self.nodes, by, self.rows)
        return f"the {'highest' if order.descending else 'lowest'} {said} of {rows}"

    def _group_superlative(
        self, order: Order, limit: int, key: Key, modifiers: list[Modifier], rows: str, what: str
    ) -> str:
        most = self._most(order, rows)
        its = f"{key.noun.its} {key.shown}" if key.noun else ""
        many_key = self.clauses.attach(key.many, modifiers)
        if limit == 1:
            one_key = singular_verbs(self.clauses.attach(key.one, modifiers))
            ask = f"Show {its + ' and ' if its else 'it with '}{what}."
            which = f"Among the {many_key}, which one" if modifiers else f"Which {one_key}"
            return f"{which} has {most}? {ask}"
        count = self.pick((str(limit), spoken_number(limit)))
        shown = f"the {plural_phrase(key.shown)} and " if key.noun else ""
        ask = f"Show {shown or 'them with '}{what}{' for each' if key.noun else ''}."
        if modifiers:
            return f"Among the {many_key}, which {count} have {most}? {ask}"
        beside = f"giving {shown}" if shown else "along with "
        verb = self.pick(SHOW)
        return self.pick(
            (
                f"Which {count} {many_key} have {most}? {ask}",
                f"{verb} the {count} {many_key} with {most}, {beside}{what}.",
            )
        )

    def over_groups(self, cte: Cte) -> str:
        """The mean of the groups' values, or the groups above it."""
        query, key = self.query, self.key()
        mine, inner = self._key_conditions()
        lead = f"Considering only {self._rows_in_groups(inner)}, " if inner else ""
        many = self.clauses.attach(key.many, self.clauses.modifiers(self.nodes, mine, query.select[0].node))
        say = self._mean_of_groups if cte.kind == "average" else self._above_mean
        return led(lead, say(query.aggregates[-1], key, many))

    def _mean_of_groups(self, aggregate: Aggregate, key: Key, many: str) -> str:
        rows, one = self.rows.many, singular_verbs(key.one + many[len(key.many) :])
        if aggregate.ref is not None:
            said = self.clauses.aggregate(self.nodes, aggregate, self.rows)
            return self.pick(
                (
                    f"If the {said} of {rows} is taken for each {one}, what is the average of these values?",
                    f"What is the mean, over all {many}, of the {said} of {rows}?",
                )
            )
        if key.noun:
            # Things without rows form no group.
            return self.pick(
                (
                    f"What is the average number of {rows} over the {many} that have any?",
                    f"On average, how many {rows} do the {many} that have any have?",
                )
            )
        return self.pick(
            (
                f"On average, how many {rows} are there for each {one}?",
                f"What is the average number of {rows} per {one}?",
            )
        )

    def _above_mean(self, aggregate: Aggregate, key: Key, many: str) -> str:
        rows = self.rows.many
        shown = f"the {plural_phrase(key.shown)} of the {many}" if key.noun else f"the {many}"
        what = self._group_values([aggregate], rows, key)
        if aggregate.ref is None:
            # Things without rows form no group.
            every = "those that have any" if key.noun else f"all {key.many}"
            mean = f"the average over {every}" if key.noun else f"the average {key.one}"
            asked = f"the {plural_phrase(key.shown)} and " if key.noun else "them with "
            verb = self.pick(SHOW)
            return self.pick(
                (
                    f"Which {many} have more {rows} than {mean}? Show {asked}the number of {rows}.",
                    f"{verb} {shown} that have more {rows} than the average over {every}, with the number of {rows}.",
                )
            )
        said = self.clauses.aggregate(self.nodes, aggregate, self.rows)
        verb = self.pick(SHOW)
        return (
            f"{verb} {shown} where the {said} of {rows} is above the average of this value over all {key.many}, "
            f"together with {what}."
        )

    def shares(self) -> str:
        """The groups' percentages of their total."""
        query, key = self.query, self.key()
        mine, inner = self._key_conditions()
        lead = f"Considering only {self._rows_in_groups(inner)}, " if inner else ""
        rows = self.rows.many
        modifiers = self.clauses.modifiers(self.nodes, mine, query.select[0].node)
        one = singular_verbs(self.clauses.attach(key.one, modifiers))
        what = self._group_values(query.aggregates, rows, key)
        whole = "the total" if query.aggregates[-1].ref is not None else f"all {'these ' if inner else ''}{rows}"
        shown, of_each = (f"the {key.shown}, ", f"the {key.shown} of each {one}") if key.noun else ("", f"each {one}")
        verb = self.pick(SHOW)
        text = self.pick(
            (
                f"For each {one}, show {shown}{what} and its percentage of {whole}.",
                f"{verb} {of_each}, {what}, and the percentage of {whole} that it makes up.",
            )
        )
        return led(lead, text)


def _singular_first(text: str, noun: Noun) -> str:
    return noun.one + text[len(noun.many) :] if text.startswith(noun.many) else text
