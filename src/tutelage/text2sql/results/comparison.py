"""Two runs side by side, on the test questions that both answered."""

from pathlib import Path

from tutelage.core.errors import DataError
from tutelage.core.results import print_table
from tutelage.text2sql.evaluation.significance import mcnemar
from tutelage.text2sql.results.items import ITEMS, read_items

SOURCES = {"seed": "people's questions", "explored": "held-out explored questions"}
Question = tuple[str, str, str, str]  # source, id, question, gold query


def read_rights(folder: Path) -> dict[Question, float]:
    """Read which test questions a run got right; those whose gold query does not run are left out.

    Raises:
        DataError: The file is gone, or is something else.
    """
    path = folder / ITEMS
    try:
        return {
            (item["source"], item["id"], item["question"], item["gold"]): float(item["right"])
            for item in read_items(path)
            if item["right"]
        }
    except (OSError, ValueError) as error:
        raise DataError(
            str(path), f"cannot be read ({error})", f"write it again: python evaluate.py run={folder}"
        ) from None


def compare(folder: Path, other: Path) -> None:
    """Print two runs' execution accuracy on the questions that both answered, with McNemar's exact test.

    Raises:
        DataError: They have no question in common.
    """
    first, second = read_rights(folder), read_rights(other)
    shared = [question for question in first if question in second]
    if not shared:
        raise DataError(
            "against", f"{other} and {folder} have no question in common", "compare runs with the same data"
        )
    rows = []
    for source, name in SOURCES.items():
        of_source = [question for question in shared if question[0] == source]
        if not of_source:
            continue
        mine, theirs = [first[question] for question in of_source], [second[question] for question in of_source]
        test = mcnemar(mine, theirs)
        percent, their_percent = (100 * sum(rights) / len(of_source) for rights in (mine, theirs))
        rows.append(
            [
                f"{name} ({len(of_source)})",
                f"{percent:.1f}",
                f"{their_percent:.1f}",
                f"{percent - their_percent:+.1f}",
                str(test.only_first),
                str(test.only_second),
                f"{test.p_value:.3g}",
            ]
        )
    left_out = len(first) + len(second) - 2 * len(shared)
    print_table(
        f"{folder}\nagainst {other}, on the questions that both answered",
        ["EX", "run", "against", "difference", "only run right", "only against right", "McNemar p"],
        rows,
        caption=f"Left out, since only one of them was asked: {left_out}." if left_out else "",
    )
