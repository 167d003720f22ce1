"""Which queries can give another result where rows are stored in another order."""

from sqlglot import exp


def may_depend_on_order(tree: exp.Query) -> bool:
    """Whether the order in which rows are stored may show: ungrouped columns, windows, texts made of rows."""
    if tree.find(exp.Window, exp.GroupConcat):
        return True
    for select in tree.find_all(exp.Select):
        group = select.args.get("group")
        shown = [part.unalias() for part in select.expressions]
        if group is None and not any(part.find(exp.AggFunc) for part in shown):
            continue
        keys = list(group.expressions) if group is not None else []
        for part in shown:
            if part not in keys and any(
                column not in keys and column.find_ancestor(exp.AggFunc, exp.Select) is select
                for column in part.find_all(exp.Column)
            ):
                return True
    return False
