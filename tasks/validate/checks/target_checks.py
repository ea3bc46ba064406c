"""Can the target be learned at all, and honestly: rows, labels, classes, columns with a role, and columns that alone
give the target away.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import polars as pl
from numpy.typing import NDArray
from pandas.api import types

from windvane.tasks.models.problem_types.class_labels import is_class
from windvane.tasks.validate.checks.column_checks import describe_infinite_values, holds_infinite_values
from windvane.tasks.validate.findings import CheckInput, FindingLevel, TableFinding, format_example

# One honest column seldom separates the classes this well: the best of breast cancer reaches 0.92, of iris 0.95.
_DETERMINED_SCORE = 0.98
# ...nor orders amounts this well. Yesterday's value of a slow series comes close, and is honest.
_SAME_ORDER = 0.995
# Empty in the same rows as the target: both come from one event. At the lower share the column must also predict it
# well.
_TOGETHER, _OFTEN_TOGETHER = 0.98, 0.8
_INFORMATIVE_CLASSES, _INFORMATIVE_ORDER = 0.8, 0.5
# A row in which more than this share of the inputs is blank is an outage, or a line of a spreadsheet without content: it
# shows nothing about any one of them.
_BLANK_SHARE = 2 / 3
# Gaps in fewer rows come together by chance.
_MIN_GAP_ROWS = 5
# Where so many of the inputs, and at least two, are blank in the same rows, one event empties them all.
_OUTAGE_SHARE = 0.5
# With fewer rows to a value than this, counts per value are noise.
_ROWS_A_VALUE = 40


@dataclass(frozen=True)
class LeakReasons:
    """Inputs that should not be learned from, each with the reason; `outage`: inputs that are blank where the target is, all at
    once, which is no sign for any one of them.
    """

    why: dict[str, str]
    outage: tuple[str, ...]


def explain_leaks(inputs: pd.DataFrame, target: pd.Series, classes: bool) -> LeakReasons:
    """Why some `inputs` give the target away, of rows from leave_out_blank_rows(); gaps in `target` count too.

    `classes`: the target is a class, else an amount.
    """
    copies = {name: why for name in inputs if (why := _explain_copy(inputs[name], target, classes))}
    gaps = {
        name: why for name in inputs if name not in copies and (why := _explain_gaps(inputs[name], target, classes))
    }
    if len(gaps) >= 2 and len(gaps) >= _OUTAGE_SHARE * inputs.shape[1]:
        return LeakReasons(copies, tuple(gaps))
    return LeakReasons(copies | gaps, ())


def leave_out_blank_rows(inputs: pd.DataFrame, target: pd.Series) -> tuple[pd.DataFrame, pd.Series]:
    """The rows (n,) of both in which inputs have values: the others are outages and lines without content, and show nothing."""
    filled = inputs.loc[:, inputs.notna().any()]
    blank = filled.isna().sum(axis=1) > _BLANK_SHARE * max(filled.shape[1], 1)
    return inputs[~blank], target[~blank]


def _explain_copy(column: pd.Series, target: pd.Series, classes: bool) -> str | None:
    """Why the values of `column` are suspect, or None."""
    has = target.notna()
    known, label = column[has], target[has]
    alone = measure_leak_strength(column, target, classes)
    if alone >= (_DETERMINED_SCORE if classes else _SAME_ORDER):
        return f"alone gives the target away ({alone:.3f} of 1): a near-copy, or known only afterwards"
    if (
        not classes
        and 2 <= known.nunique() <= 20
        and _class_recall(label, known.astype("str").where(known.notna(), "missing")) >= _DETERMINED_SCORE
    ):
        return "seems to be made from the target: each of its values has amounts of its own"
    return None


def _explain_gaps(column: pd.Series, target: pd.Series, classes: bool) -> str | None:
    """Why the gaps of `column` are suspect, or None."""
    missing, has = column.isna(), target.notna()
    if missing.sum() < _MIN_GAP_ROWS:
        return None
    if classes and any(_mask_agreement(missing, target == k) >= _OFTEN_TOGETHER for k in target[has].unique()):
        return "is empty in the rows of one class: known only afterwards"
    together = _mask_agreement(missing, ~has)
    informative = measure_leak_strength(column, target, classes) >= (
        _INFORMATIVE_CLASSES if classes else _INFORMATIVE_ORDER
    )
    if together >= _TOGETHER or (together >= _OFTEN_TOGETHER and informative):
        return "is empty where the target is: known only when the target is"
    return None


def measure_leak_strength(column: pd.Series, target: pd.Series, classes: bool) -> float:
    """How far `column` alone predicts the target, 0 to 1: balanced accuracy of classes, |Spearman's rho| of amounts."""
    has = target.notna()
    return _class_recall(column[has], target[has]) if classes else _rank_correlation(column[has], target[has])


def measure_explained_share(column: pd.Series, target: pd.Series) -> float:
    """Share of an amount's variance that `column` alone explains, in whatever order: on odd rows, by a guess learned on even rows.

    Guess: the amount at the nearest value, or the mean amount of a value without an order.
    """
    has = target.notna() & column.notna()
    label, known, odd = target[has].astype("float64"), column[has], np.arange(int(has.sum())) % 2 == 1
    if len(label) < 100 or not np.isfinite(label).all() or label[odd].var() == 0:
        return 0.0  # infinite amounts are reported by themselves
    even = label[~odd]
    if _is_ordered(known):
        values = known.astype("int64" if known.dtype.kind == "M" else "float64").to_numpy(dtype="float64")
        order = np.argsort(values[~odd], kind="stable")
        learned, amounts = values[~odd][order], even.to_numpy()[order]
        above = np.clip(np.searchsorted(learned, values[odd]), 1, len(learned) - 1)
        below = above - 1
        nearer = np.where(values[odd] - learned[below] <= learned[above] - values[odd], below, above)
        guess = amounts[nearer]
    else:
        guess = known[odd].map(even.groupby(known[~odd]).mean()).fillna(even.mean()).to_numpy(dtype="float64")
    with np.errstate(
        over="ignore", invalid="ignore"
    ):  # of the largest floats the squares are infinite: nothing is explained
        return 1.0 - float(np.square(label[odd].to_numpy() - guess).mean() / label[odd].var(ddof=0))


def measure_signal(column: pd.Series, target: pd.Series, classes: bool) -> float:
    """How much of the target `column` alone shows, 0 to 1: above chance for classes, the share of variance for amounts."""
    strength = measure_leak_strength(column, target, classes)
    if classes:
        chance = 1 / max(target.nunique(), 2)
        return max(strength - chance, 0.0) / (1 - chance)
    return max(strength**2, measure_explained_share(column, target))


def _mask_agreement(a: pd.Series, b: pd.Series) -> float:
    """How far two masks agree: Jaccard's index of the marked rows or of the unmarked ones, whichever is lower.

    One of them alone is high by chance where both masks cover most rows, or few.
    """
    pairs = ((a & b, a | b), (~a & ~b, ~a | ~b))
    return min(float(both.sum()) / max(int(either.sum()), 1) for both, either in pairs)


def _rank_correlation(column: pd.Series, label: pd.Series) -> float:
    """|Spearman's rho| over the rows that have both; 0 for columns without an order."""
    if not (types.is_numeric_dtype(column) or types.is_datetime64_any_dtype(column)):
        return 0.0
    both = column.notna()
    a, b = column[both].rank().to_numpy(), label[both].rank().to_numpy()
    if len(a) < 10 or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(abs(np.corrcoef(a, b)[0, 1]))


def _class_recall(column: pd.Series, label: pd.Series) -> float:
    """How well the column alone predicts the classes: balanced accuracy on odd rows of a guess learned on even rows.

    Guess: the class for which a value is most usual; of a number with many values, the class of its nearest smaller
    neighbour.
    """
    label_codes = pd.factorize(label)[0]
    odd = np.arange(len(label)) % 2 == 1
    many = _is_ordered(column) and column.nunique() > len(column) / _ROWS_A_VALUE
    guess = (_guess_by_neighbour if many else _guess_by_value)(column, label_codes, odd)
    recalls = [(guess[odd & (label_codes == k)] == k).mean() for k in np.unique(label_codes[odd]) if k >= 0]
    return float(np.mean(recalls)) if len(recalls) > 1 else 0.0


def _is_ordered(column: pd.Series) -> bool:
    return types.is_datetime64_any_dtype(column) or (types.is_numeric_dtype(column) and not types.is_bool_dtype(column))


def _guess_by_value(column: pd.Series, label: NDArray[np.intp], odd: NDArray[np.bool_]) -> NDArray[np.intp]:
    values = pd.factorize(column)[0] + 1  # a missing value, -1, is a value here
    counts = np.zeros((int(values.max(initial=0)) + 1, int(label.max(initial=0)) + 1))
    np.add.at(counts, (values[~odd], label[~odd]), 1)
    return cast("NDArray[np.intp]", (counts / np.maximum(counts.sum(axis=0), 1)).argmax(axis=1)[values])


def _guess_by_neighbour(column: pd.Series, label: NDArray[np.intp], odd: NDArray[np.bool_]) -> NDArray[np.intp]:
    order = np.argsort(column.rank().fillna(0.0).to_numpy(dtype="float64"), kind="stable")
    # Position of the last even row at or before each place; the first places take the first even row.
    last = np.maximum.accumulate(np.where(odd[order], -1, np.arange(len(order))))
    first = int(np.argmin(odd[order]))
    guess = np.empty_like(label)
    guess[order] = label[order][np.where(last < 0, first, last)]
    return guess


LEAK_CHECKS = {"leak": "no column that alone gives the target away"}
# Rows checked: a giveaway shows in few.
LEAK_SAMPLE_ROWS = 10_000
# From here on there is hardly a row that the column does not decide.
CERTAIN_LEAK_SCORE = 0.9995


def find_leaks(e: CheckInput) -> Iterator[TableFinding]:
    """One column after the other, on rows with and without a label: gaps that come together count too."""
    problem = e.problem
    if e.counts[problem.target].distinct < 2 or e.profile.rows < 100:
        return
    classes = problem.kind == "classification"
    some = e.sampled.gather_every(max(-(-len(e.sampled) // LEAK_SAMPLE_ROWS), 1))
    target = some[problem.target].to_pandas()
    if not classes and not e.sampled[problem.target].dtype.is_numeric():
        return
    names = [name for name in e.features if not e.counts[name].constant and name != problem.time]
    inputs = pd.DataFrame({name: some[name].to_pandas() for name in names}, index=target.index)
    inputs, target = leave_out_blank_rows(inputs, target)
    found = explain_leaks(inputs, target, classes)
    for name in names:
        column, why = inputs[name], found.why.get(name)
        strength = measure_leak_strength(column, target, classes)
        if why is None and not classes and (share := measure_explained_share(column, target)) >= _DETERMINED_SCORE:
            why, strength = f"alone decides {problem.target!r} ({share:.4f} of 1 on rows that were held out)", share
        if why is None:
            continue
        level: FindingLevel = "stop" if strength >= CERTAIN_LEAK_SCORE else "warn"
        prefix = "data.source: column " if level == "stop" else ""
        text = f"{prefix}{name!r} {why}. Add it to problem.ignore, unless it is known before {problem.target!r} is"
        yield TableFinding("leak", level, name, round(strength, 4), CERTAIN_LEAK_SCORE, text)
    if found.outage:
        text = f"{describe_outage(found.outage, problem.target)}. Add those to problem.ignore that are"
        yield TableFinding("leak", "warn", None, len(found.outage), 0, text)


def describe_outage(names: tuple[str, ...], target: str) -> str:
    """The sentence on inputs that are blank together where the target is."""
    listed = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
    return (
        f"{listed}: empty where {target!r} is, all {len(names)} at once: taken for outages, and learned from, unless they are "
        f"known only when {target!r} is"
    )


TARGET_CHECKS = {
    "rows": "enough rows with a label",
    "target": "a target that can be learned",
    "classes": "enough rows of every class",
    "balance": "classes of comparable size",
    "positive": "a positive class only where there are two classes",
    "label": "every row has a label",
    "roles": "id and group are complete, ids are unique, weights are amounts",
    "features": "features to train on",
}
# By strategy: 20 rows to learn from, 10 that tune where they are a split of their own, and of those that judge 10, which
# the others join out of fold (tasks/evaluation/out_of_fold.py), or with strategy time 30, as no later row may train.
MIN_LABELLED_ROWS = {"kfold": 30, "random": 40, "stratified": 40, "group": 40, "time": 60}
# Three rows of a class judge, three tune (tasks/split/data_split.py): four are left to learn from.
MIN_CLASS_ROWS = 10
# More classes than this are names or amounts, and one probability for each is out of reach.
MAX_TARGET_CLASSES = 100
# A rarer class is outvoted: a model that never predicts it seems right.
RARE_CLASS_SHARE = 0.05


def find_target_faults(e: CheckInput) -> Iterator[TableFinding]:
    """All that makes learning impossible, or lopsided."""
    rows, least, fewest = e.profile.rows, MIN_LABELLED_ROWS[e.chosen.split.strategy], MIN_LABELLED_ROWS["kfold"]
    if rows < least:
        text = (
            f"data.source: {rows} rows with a label are too few: with split.strategy {e.chosen.split.strategy} at least {least} are "
            f"needed to learn, tune and judge. Add rows{f', or set it to kfold: {fewest} are enough' if rows >= fewest else ''}"
        )
        yield TableFinding("rows", "stop", None, rows, least, text)
    yield from _check_target(e)
    yield from _check_roles(e)
    columns = {c.name: c for c in e.profile.columns}
    if not [name for name in e.features if columns[name].type != "text" and not columns[name].constant]:
        text = (
            "data.source: no column is left to learn from: all others are ignored, empty, constant or free text. Add "
            "columns, or shorten problem.ignore"
        )
        yield TableFinding("features", "stop", None, 0, 1, text)
    if e.rows > e.profile.rows:
        gone = e.rows - e.profile.rows
        text = (
            f"{gone} of {e.rows} rows have no label ({e.problem.target!r} is empty): they are not used. Add "
            "the labels if you have them"
        )
        yield TableFinding("label", "warn", e.problem.target, gone / e.rows, 0.0, text)


def _check_target(e: CheckInput) -> Iterator[TableFinding]:
    column = next(c for c in e.profile.columns if c.name == e.problem.target)
    target = f"problem.target: column {column.name!r}"
    if column.distinct == 1:
        only = format_example(e.sample[column.name][0])
        text = f"{target} is constant ({only} in every row): there is nothing to learn. Name another column"
        yield TableFinding("target", "stop", column.name, 1, 2, text)
    elif column.type == "date":
        text = f"{target} holds dates. Name a number or a class; a span of days is a number"
        yield TableFinding("target", "stop", column.name, "date", "number", text)
    elif e.problem.kind == "regression":
        yield from _check_amounts(target, e)
    else:
        yield from _check_classes(target, e)


def _check_amounts(target: str, e: CheckInput) -> Iterator[TableFinding]:
    counts, name = e.counts[e.problem.target], e.problem.target
    if counts.shape != "number":
        what = "words" if counts.shape != "boolean" else "true and false"
        text = f"{target} holds {what}, not numbers. Set problem.kind: classification, or name a number"
        yield TableFinding("target", "stop", name, what, "number", text)
    elif holds_infinite_values(counts):
        yield describe_infinite_values(counts, target, "")
    elif counts.distinct == 2:
        text = f"{name!r} has two values: problem.kind: classification would suit it better"
        yield TableFinding("target", "warn", name, 2, 3, text)


def _check_classes(target: str, e: CheckInput) -> Iterator[TableFinding]:
    name, rows, distinct = e.problem.target, e.profile.rows, e.counts[e.problem.target].distinct
    if distinct > min(MAX_TARGET_CLASSES, rows / 2):
        remedy = "Name another column, or join rare classes"
        if e.counts[name].shape == "number":
            remedy = "It looks like an amount: set problem.kind: regression"
        text = (
            f"{target} has {distinct} different values in {rows} rows; at most {MAX_TARGET_CLASSES} classes, "
            f"each in several rows, can be distinguished. {remedy}"
        )
        yield TableFinding("classes", "stop", name, distinct, MAX_TARGET_CLASSES, text)
        return
    counts = e.labelled.group_by(name).agg(pl.len().alias("rows")).sort("rows", name).collect(engine="streaming")
    few, kept = counts.filter(pl.col("rows") < MIN_CLASS_ROWS), counts.filter(pl.col("rows") >= MIN_CLASS_ROWS)
    listed = ", ".join(f"{format_example(value)} ({count})" for value, count in few.head(5).iter_rows())
    listed += f" and {len(few) - 5} more" if len(few) > 5 else ""
    if list_set_aside_classes(e):
        text = (
            f"{few['rows'].sum()} rows of classes with fewer than {MIN_CLASS_ROWS} rows are set aside, as accept in schema.yaml "
            f"allows: {listed}. No model learns or predicts these classes until they have more rows"
        )
        yield TableFinding("classes", "warn", name, few["rows"][0], MIN_CLASS_ROWS, text)
    elif len(few):
        apart = f", or add 'classes:{name}' to accept in schema.yaml to set their rows aside" if len(kept) > 1 else ""
        text = (
            f"{target}: classes with fewer than {MIN_CLASS_ROWS} rows: {listed}. Add rows, join them with another "
            f"class{apart}"
        )
        yield TableFinding("classes", "stop", name, few["rows"][0], MIN_CLASS_ROWS, text)
    elif (share := counts["rows"][0] / rows) < RARE_CLASS_SHARE:
        text = (
            f"class {format_example(counts[name][0])} of {name!r} has {share:.1%} of the rows: a model that never predicts it is "
            "right nearly always. Judge by f1 or roc_auc, not by accuracy"
        )
        yield TableFinding("balance", "warn", name, share, RARE_CLASS_SHARE, text)
    yield from _check_positive(target, e, counts[name].to_list())


def _check_positive(target: str, e: CheckInput, classes: list[Any]) -> Iterator[TableFinding]:
    positive, listed = e.problem.positive, ", ".join(format_example(value) for value in classes[:12])
    if positive is None:
        return
    if len(classes) != 2:
        text = f"problem.positive: {positive!r} counts only where there are two classes: {target} has {listed}. Set it to null"
        yield TableFinding("positive", "warn", e.problem.target, len(classes), 2, text)
    elif not any(is_class(value, positive) for value in classes):
        text = f"problem.positive: {e.problem.target!r} has no class {positive!r}. Name one of {listed}"
        yield TableFinding("target", "stop", e.problem.target, str(positive), listed, text)


def list_set_aside_classes(e: CheckInput) -> tuple[Any, ...]:
    """The classes with too few rows, where a person accepts in schema.yaml that these rows are left out and two others remain."""
    name = e.problem.target
    if e.problem.kind != "classification" or e.contract is None or f"classes:{name}" not in e.contract.accept:
        return ()
    counts = e.labelled.group_by(name).agg(pl.len().alias("rows")).sort("rows", name).collect(engine="streaming")
    few = counts.filter(pl.col("rows") < MIN_CLASS_ROWS)
    return tuple(few[name]) if len(counts) - len(few) > 1 else ()


def _check_roles(e: CheckInput) -> Iterator[TableFinding]:
    for role, name in (("id", e.problem.id), ("group", e.problem.group)):
        missing = 0 if name is None else e.whole.select(pl.col(name).null_count()).collect(engine="streaming").item()
        if missing:
            text = (
                f"problem.{role}: column {name!r} is empty in {missing} rows. Fill it in, or set problem.{role} to null"
            )
            yield TableFinding("roles", "stop", name, missing, 0, text)
    yield from _check_weights(e)
    if e.problem.id is None:
        return
    again, first = _repeats(e.whole, e.problem.id)
    if again:
        text = (
            f"problem.id: column {e.problem.id!r} repeats: {again} rows have an id that came before, such as {first}. "
            "Name a column that is different in every row, or set problem.id to null and add it to problem.ignore"
        )
        yield TableFinding("roles", "stop", e.problem.id, again, 0, text)


def _check_weights(e: CheckInput) -> Iterator[TableFinding]:
    name = e.problem.weight
    if name is None:
        return
    where, remedy = f"problem.weight: column {name!r}", "Name a column of amounts, or set problem.weight to null"
    if e.counts[name].shape != "number" or holds_infinite_values(e.counts[name]):
        yield TableFinding("roles", "stop", name, 0, 1, f"{where} holds more than finite numbers. {remedy}")
        return
    weight = pl.col(name)
    wanted = ((weight < 0).sum().alias("below"), weight.sum().alias("total"))
    below, total = e.labelled.select(wanted).collect(engine="streaming").row(0)
    if below or not total > 0:
        what = f"is below zero in {below} rows" if below else "is zero in every row"
        yield TableFinding("roles", "stop", name, below, 0, f"{where} {what}. {remedy}")


def _repeats(scan: pl.LazyFrame, name: str) -> tuple[int, str]:
    """How many rows bear a value that came before, exactly, and one such value."""
    values = scan.select(pl.col(name).drop_nulls())
    both = values.select(pl.len().alias("n"), pl.col(name).n_unique().alias("u"))
    rows, distinct = both.collect(engine="streaming").row(0)
    if rows == distinct:
        return 0, ""
    counted = values.group_by(name).agg(pl.len().alias("rows of a value")).filter(pl.col("rows of a value") > 1)
    return rows - distinct, format_example(counted.select(pl.col(name).min()).collect(engine="streaming").item())
