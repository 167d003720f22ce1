"""What is said of a condition on a column: the ways to make it a modifier of the rows."""

import re
from dataclasses import dataclass

from tutelage.text2sql.database.catalog import Value
from tutelage.text2sql.database.nouns import is_plural
from tutelage.text2sql.explore.facts.roles import Profile
from tutelage.text2sql.explore.synthesizers.naming import Noun
from tutelage.text2sql.explore.synthesizers.offline_tree import (
    AgainstAverage,
    AtExtreme,
    Between,
    Compare,
    Comparison,
    InYear,
    Like,
    Missing,
    Node,
    OneOf,
    SameAs,
)
from tutelage.text2sql.explore.synthesizers.offline_wording import (
    ADJECTIVES,
    Modifier,
    Wording,
    plural_verb,
    with_article,
)
from tutelage.text2sql.explore.words import listed

# What compares with other rows: "above the average age of all singers from France" would be another question.
COMPARING = AgainstAverage | AtExtreme | SameAs
OnColumn = Compare | Between | OneOf | Like | InYear | Missing | AgainstAverage | AtExtreme | SameAs

_PLACES = {"country", "city", "hometown", "state", "region", "continent", "district", "county", "province"}
_COUNTED = "number of "
_DATE_OPS: dict[Comparison, str] = {
    ">=": "on or after",
    "<": "before",
    ">": "after",
    "<=": "on or before",
    "=": "",
    "!=": "not",
}
_NUMBER_OPS: dict[Comparison, tuple[str, ...]] = {
    ">": ("more than", "greater than", "above", "over"),
    "<": ("less than", "below", "under"),
    ">=": ("at least",),
    "<=": ("at most",),
    "=": ("",),
    "!=": ("not",),
}
_COUNT_OPS: dict[Comparison, str] = {
    ">": "more than",
    "<": "fewer than",
    ">=": "at least",
    "<=": "at most",
    "=": "exactly",
}
_LIKE = {
    "starts": ("starts with", "begins with"),
    "contains": ("contains", "includes"),
    "ends": ("ends with", "ends in"),
}


@dataclass(frozen=True, slots=True)
class Spoken:
    """A condition's column as it stands in the sentence.

    ``path`` are the nouns from the rows to whose column it is, none for the rows' own: ``whose`` says the column with
    its owners ("owner's city"), ``who`` the last owner alone ("owner").
    """

    wording: Wording
    said: str
    profile: Profile
    path: list[Noun]
    entity: Noun
    by_name: bool  # the column is what the rows are called by
    many: str  # all rows of the column's table

    @property
    def whose(self) -> str:
        return "".join(f"{noun.one}'s " for noun in self.path) + self.said

    @property
    def who(self) -> str:
        return "'s ".join(noun.one for noun in self.path)

    @property
    def verb(self) -> str:
        return "are" if plural_verb(self.said) else "is"

    @property
    def a_said(self) -> str:
        return with_article(self.said)

    def value(self, value: Value) -> str:
        return self.wording.day(value, self.profile) if self.profile.role == "date" else self.wording.value(value)


def modifier(
    wording: Wording, nodes: tuple[Node, ...], condition: OnColumn, path: list[Noun], *, plainly: bool, alone: bool
) -> Modifier:
    """Say a condition in one of its ways.

    Args:
        wording: Names and chooses.
        nodes: The join tree.
        condition: What is said.
        path: The nouns from the rows to those whose column it is.
        plainly: Leave out the ways that begin with "with".
        alone: Nothing else is said of the rows.
    """
    table = nodes[condition.ref.node].table
    spoken = Spoken(
        wording,
        wording.column(nodes, condition.ref),
        wording.profile(nodes, condition.ref),
        path,
        wording.noun(nodes, condition.ref.node) if path else wording.naming.noun(table),
        wording.naming.label(table) == (condition.ref.column,),
        wording.naming.noun(table).many,
    )
    options = _options(spoken, condition)
    if isinstance(condition, COMPARING) and not alone:
        # Clauses after this one are joined to it by "and", and cannot be those of "all singers".
        options = [option for option in options if option[0] == "whose"]
    if plainly:
        options = [option for option in options if option[0] != "with"] or options
    return options[int(wording.rng.integers(len(options)))]


def _options(spoken: Spoken, condition: OnColumn) -> list[Modifier]:
    match condition:
        case Compare():
            return _compare(spoken, condition)
        case Between():
            return _between(spoken, condition)
        case OneOf():
            values = listed([spoken.wording.value(value) for value in condition.values], "or")
            # "'a' or 'b' and …" would leave open what "and" joins.
            either = "either " if len(condition.values) == 2 else ""
            subject = spoken.who if spoken.by_name and spoken.path else spoken.whose
            return [("whose", f"{subject} {spoken.verb} {either}{values}")]
        case Like():
            text = spoken.wording.value(condition.text)
            return [("whose", f"{spoken.whose} {spoken.wording.pick(_LIKE[condition.where])} {text}")]
        case InYear():
            return [("whose", f"{spoken.whose} {how} in {condition.year}") for how in ("is", "falls")]
        case Missing():
            return _missing(spoken, condition)
        case AgainstAverage():
            return _against_average(spoken, condition)
        case AtExtreme():
            return _at_extreme(spoken, condition)
        case SameAs():
            return _same_as(spoken, condition)


def _compare(spoken: Spoken, condition: Compare) -> list[Modifier]:
    match spoken.profile.role:
        case "date":
            return _date(spoken, condition)
        case "flag":
            return [_flag(spoken, condition)]
        case "year":
            return _year(spoken, condition)
        case "measure" | "ordinal":
            return _number(spoken, condition)
        case _:
            return _text(spoken, condition)


def _date(spoken: Spoken, condition: Compare) -> list[Modifier]:
    when = f"{_DATE_OPS[condition.op]} {spoken.value(condition.value)}"
    options: list[Modifier] = [("whose", f"{spoken.whose} is {when}")]
    if not spoken.path:
        options.append(("with", f"{spoken.a_said} {when}"))
    return options


def _year(spoken: Spoken, condition: Compare) -> list[Modifier]:
    value = spoken.value(condition.value)
    before = {">": "after ", "<": "before ", "!=": "not "}.get(condition.op, "")
    after = {">=": " or later", "<=": " or earlier"}.get(condition.op, "")
    options: list[Modifier] = [("whose", f"{spoken.whose} is {before}{value}{after}")]
    if not spoken.path and condition.op in (">", "<"):
        options.append(("with", f"{spoken.a_said} {before}{value}"))
    return options


def _flag(spoken: Spoken, condition: Compare) -> Modifier:
    yes = str(condition.value).strip().lower() in ("t", "true", "yes", "y", "1", "1.0")
    words = spoken.said.split(" ")
    asks = words[0] in ("is", "was")
    if not asks and not condition.ref.column.lower().endswith("_yn"):
        return "whose", f"{spoken.whose} is {spoken.value(condition.value)}"
    what = f"{'' if yes else 'not '}{' '.join(words[1:]) if asks else spoken.said}"
    return ("whose", f"{spoken.who} is {what}") if spoken.path else ("that", f"are {what}")


def _number(spoken: Spoken, condition: Compare) -> list[Modifier]:
    op, value, how = condition.op, spoken.value(condition.value), _NUMBER_OPS[condition.op]
    side = spoken.wording.pick(how)
    options: list[Modifier] = [("whose", f"{spoken.whose} {spoken.verb} {side}{' ' if side else ''}{value}")]
    if spoken.path:
        if spoken.said == "age" and op in (">", "<"):
            options.append(("whose", f"{spoken.who} is {'older' if op == '>' else 'younger'} than {value}"))
        return options
    if spoken.said.startswith(_COUNTED):
        if op in _COUNT_OPS:
            options.append(("with", f"{_COUNT_OPS[op]} {value} {spoken.said[len(_COUNTED) :]}"))
        return options
    if spoken.profile.time_part:
        return options
    if op == "=":
        options.append(("with", f"{spoken.a_said} of {value}"))
    elif op != "!=":
        side = spoken.wording.pick(how)
        link = "of " if side in ("more than", "less than", "at least", "at most") else ""
        options.append(("with", f"{spoken.a_said} {link}{side} {value}"))
    adjective = ADJECTIVES.get(spoken.said.lower())
    if adjective and op in (">", "<"):
        than: Modifier = ("plain", f"{adjective[0 if op == '>' else 1]} than {value}")
        options += [than, than]  # what people say most
    return options


def _text(spoken: Spoken, condition: Compare) -> list[Modifier]:
    value = spoken.value(condition.value)
    negation = "not " if condition.op == "!=" else ""
    if spoken.path and spoken.by_name:
        return [("whose", f"{spoken.who} is {negation}{value}")]
    options: list[Modifier] = [("whose", f"{spoken.whose} {spoken.verb} {negation}{value}")]
    if negation or spoken.path:
        return options
    bare = value[1:-1]
    if spoken.by_name and spoken.said == "name":
        options.append(("plain", f"{spoken.wording.pick(('named', 'called'))} {value}"))
    elif spoken.said in _PLACES and bare[:1].isupper() and re.fullmatch(r"[^\W\d_][\w .'-]{3,}", bare):
        place: Modifier = ("plain", f"{'from' if spoken.entity.person else 'in'} {bare}")
        options += [place, place]
    else:
        options.append(("with", f"the {spoken.said} {value}"))
        if not is_plural(spoken.said) and spoken.wording.rng.random() < 0.5:
            options.append(("with", f"{spoken.said} {value}"))
    return options


def _between(spoken: Spoken, condition: Between) -> list[Modifier]:
    low, high = spoken.value(condition.low), spoken.value(condition.high)
    options: list[Modifier] = [("whose", f"{spoken.whose} {spoken.verb} between {low} and {high}")]
    if not spoken.path and spoken.said == "age":
        options.append(("plain", f"aged between {low} and {high}"))
    elif not spoken.path and not spoken.profile.time_part:
        options.append(("with", f"{spoken.a_said} between {low} and {high}"))
    return options


def _missing(spoken: Spoken, condition: Missing) -> list[Modifier]:
    ways = ("known", "recorded") if condition.negated else ("missing", "not known")
    options: list[Modifier] = [("whose", f"{spoken.whose} {spoken.verb} {way}") for way in ways]
    if not condition.negated and not spoken.path:
        options.append(("with", f"no {spoken.said} recorded"))
    return options


def _against_average(spoken: Spoken, condition: AgainstAverage) -> list[Modifier]:
    said = spoken.said
    average = f"the average {said} of all {spoken.many}"
    side = spoken.wording.pick(("above", "higher than", "greater than") if condition.above else ("below", "lower than"))
    options: list[Modifier] = [("whose", f"{spoken.whose} {spoken.verb} {side} {average}")]
    adjective = ADJECTIVES.get(said.lower())
    if not spoken.path:
        options.append(("with", f"{spoken.a_said} {side} {average}"))
        if adjective:
            options.append(("plain", f"{adjective[0 if condition.above else 1]} than {average}"))
    return options


def _at_extreme(spoken: Spoken, condition: AtExtreme) -> list[Modifier]:
    most = spoken.wording.extreme(spoken.said, spoken.profile, highest=condition.highest)
    options: list[Modifier] = [
        ("whose", f"{spoken.whose} equals the {most} of all {spoken.many}"),
        ("whose", f"{spoken.whose} {spoken.verb} the {most} of all {spoken.many}"),
    ]
    if not spoken.path:
        options.append(("with", f"the {most} of all {spoken.many}"))
    return options


def _same_as(spoken: Spoken, condition: SameAs) -> list[Modifier]:
    named = spoken.wording.value(condition.value)
    other = f"{spoken.entity.one} {named}" if spoken.wording.rng.random() < 0.5 else named
    options: list[Modifier] = [("whose", f"{spoken.whose} {spoken.verb} the same as that of {other}")]
    if not spoken.path:
        options.insert(0, ("with", f"the same {spoken.said} as {other}"))
        if spoken.said in _PLACES:
            where = "from" if spoken.entity.person else "in"
            options.append(("plain", f"{where} the same {spoken.said} as {other}"))
    return options
