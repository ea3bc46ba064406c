"""How a table's cells are written (data.format), guessed from what they show: one line for each guess, with how sure it is and what
overrides it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from windvane.tasks.errors import InputError
from windvane.tasks.ingest import column_types, text_files, text_parsing, workbooks
from windvane.tasks.ingest.cell_reading import (
    FORM_WORDS,
    PERCENT_SIGN,
    SHEET_ENDINGS,
    START_ROWS,
    TEXT_ENDINGS,
    UNPACK_ERRORS,
    NumberForm,
    find_table_start,
    has_data_in_header,
    is_plain_number,
    list_number_forms,
    read_ending,
    read_written_dates,
    suggest_start_keys,
)
from windvane.tasks.ingest.readers import FileCells
from windvane.tasks.settings.data_section import FormatSettings


@dataclass(frozen=True)
class NumberGuess:
    """The form that reads most columns of numbers which no program wrote: these, those it does not read, and what is unsure about it:
    a word, with its other reading. `example`: a word that shows it; `clear`: none beside it is written as a program would.
    """

    form: NumberForm
    columns: tuple[str, ...]
    unread: tuple[str, ...]
    unsure: tuple[str, float] | None
    example: str
    clear: bool


def propose_start(paths: Sequence[Path], given: FormatSettings, target: str, notes: list[str]) -> FormatSettings:
    """The keys of data.format without which the header of a text table is not found, beside those `given`; the lines about them go to
    `notes`. Raises InputError where a file seems to have none and no column of it is called as the target.
    """
    form = given
    for path in paths:
        if read_ending(path) not in TEXT_ENDINGS or not path.is_file():
            continue
        try:
            if read_ending(path) in SHEET_ENDINGS:
                sheet, filled = workbooks.choose_sheet(path, path, form.sheet)
                texts = {
                    name: workbooks.render_sheet(path, path, name)
                    for name in (filled if form.sheet is None else (sheet,))
                }
                # The first that has the target, at its top: a title may be above it.
                sheet = next((name for name, text in texts.items() if target in _list_first_cells(text)), sheet)
                lines = io.StringIO(texts[sheet], newline="").readlines()
                if form.sheet is None and len(filled) > 1:
                    form = form.model_copy(update={"sheet": sheet})
                    notes.append(
                        f"{path}: sheet {sheet!r} of {', '.join(map(repr, filled))} is read (a guess); --format sheet=… names another"
                    )
            else:
                lines = text_files.read_start_lines(path, path)
            while (start := find_table_start(lines, form.header, form.comment, form.skip_rows)) and form.header is True:
                keys = suggest_start_keys(start, lines)
                if not keys:
                    break
                form = form.model_copy(update=keys)
                (key, value), *_ = keys.items()
                title = f"{path}: line {start.above + 1}, {lines[start.above].strip()[:60]!r}"
                notes.append(
                    f"{title}, is no header (likely): data.format: {key}: {value}; --format {key}=… overrides it"
                )
        except (csv.Error, *UNPACK_ERRORS):
            continue  # ingest reports what is wrong with it
        if (
            start is None
            or "header" in given.model_fields_set
            or form.header is not True
            or not has_data_in_header(start)
        ):
            continue
        columns, first = (
            [f"column_{place}" for place in range(1, len(start.header) + 1)],
            lines[start.above].strip()[:60],
        )
        what = f"{path}: line {start.above + 1}, {first!r}, looks like a row and no header (likely)"
        if target in columns:
            form = form.model_copy(update={"header": False})
            notes.append(f"{what}: its columns are called column_1 to {columns[-1]}; --format header=true overrides it")
        elif target in map(str.strip, start.header):
            notes.append(
                f"attention: {what}, and is taken for the header: a column is called {target!r}. --format header=false overrides it"
            )
        else:
            raise InputError(
                f"{what}. Name one of column_1 to {columns[-1]} as --target, or name all: --format 'header=[a, b, …]'; --format "
                "header=true takes it for the header"
            )
    return form


def _list_first_cells(text: str) -> set[str]:
    """The cells in the first rows of a text table whose cells commas part."""
    return {cell.strip() for row in islice(csv.reader(io.StringIO(text, newline="")), START_ROWS) for cell in row}


# What spreadsheets write for an error, and people for nothing, beside words without a letter or digit such as ? and ---.
_NO_VALUE = frozenset(
    (
        "missing",
        "unknown",
        "undefined",
        "not available",
        "n.a.",
        "k.a.",
        "(null)",
        "#div/0!",
        "#value!",
        "#ref!",
        "#name?",
        "#num!",
    )
)


def propose_missing_words(opened: Sequence[FileCells], given: FormatSettings, notes: list[str]) -> FormatSettings:
    """The words found in place of numbers or dates that have no value; the line about them goes to `notes`."""
    if "missing_words" in given.model_fields_set:
        return given
    found: dict[str, list[str]] = {}
    for name, words in _read_words(opened).items():
        odd = [word for word in words if not any(map(str.isalnum, word)) or word.lower() in _NO_VALUE]
        rest = [word for word in words if word not in odd]
        if odd and rest and _are_numbers_or_dates(rest):
            for word in odd:
                found.setdefault(word, []).append(name)
    if not found:
        return given
    listed = "; ".join(f"{word!r} in {', '.join(map(repr, names))}" for word, names in found.items())
    notes.append(
        f"no value: {listed} (likely), and so in every column: data.format: {{missing_words: {list(found)}}}; --format missing_words=… "
        "overrides it"
    )
    return given.model_copy(update={"missing_words": tuple(found)})


def _are_numbers_or_dates(words: Sequence[str]) -> bool:
    if any(all(form.read(word) is not None for word in words) for form in list_number_forms(words)):
        return True
    return text_parsing.measure_iso_share(pl.Series(words)) == 1 or read_written_dates(words) is not None


def propose_format(opened: Sequence[FileCells], given: FormatSettings, notes: list[str]) -> FormatSettings:
    """What data.format should be beside what is `given`; the lines about it go to `notes`."""
    if given.numbers is not None:
        return given
    columns = _read_words(opened)
    found = guess_number_form(columns, any(f.dialect and f.dialect.delimiter == ";" for f in opened))
    if found is None and all(file.typed for file in opened) and (quoted := _find_quoted_numbers(columns)):
        notes.append(
            f"numbers of {', '.join(map(repr, quoted))} are written as words, such as {quoted[next(iter(quoted))]!r}: data.format: "
            '{decimal: "."} (likely); without it in params.yaml they are text'
        )
        return given.model_copy(update={"decimal": "."})
    if found is None:
        return given
    form, names = found.form, ", ".join(map(repr, found.columns))
    sure = "a guess" if found.unsure else "sure" if found.clear else "likely"
    notes.append(
        f"numbers of {names} are written as {found.example!r}: data.format: {form.describe()} ({sure}); --format decimal=… or "
        "--format thousands=… overrides it"
    )
    if found.unsure is not None:
        word, other = found.unsure
        notes.append(
            f"attention: {word!r} is read as {form.read(word):.12g}, and could be {other:.12g}: the cells do not show what parts "
            f"thousands. --format decimal={'.' if form.decimal == ',' else ','} reads it otherwise"
        )
    if PERCENT_SIGN in form.signs:
        notes.append(
            "12% is read as 12 (sure): a percentage keeps its size; data.format.signs lists what is taken off numbers"
        )
    if found.unread:
        notes.append(
            f"attention: numbers of {', '.join(map(repr, found.unread))} are written in another form than most: a table has one. Write "
            "them alike in the source, to learn from them too"
        )
    return given.model_copy(update={"decimal": form.decimal, "thousands": form.thousands, "signs": form.signs})


def _find_quoted_numbers(columns: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Of a file that distinguishes words from numbers, the columns of words that all are numbers, not only digits as codes are, each with
    one of them.
    """
    measured = {
        name: next((w for w in words if not w.isdigit()), None)
        for name, words in columns.items()
        if all(map(is_plain_number, words))
    }
    return {name: word for name, word in measured.items() if word is not None}


def guess_number_form(columns: Mapping[str, Sequence[str]], semicolons: bool) -> NumberGuess | None:
    """How the numbers among these columns' words are written; None: as programs write them. `semicolons`: they part the cells, as
    where a comma is the decimal sign.
    """
    fitting = {name: forms for name, words in columns.items() if (forms := list_number_forms(words))}
    shown = {name: _list_marked(columns[name], forms) for name, forms in fitting.items()}
    marked = tuple(name for name, words in shown.items() if words)
    if not marked:
        return None
    counts: dict[tuple[str, str | None], int] = {}
    for name, forms in fitting.items():
        for form in forms:  # a column that shows its form outweighs those that show none
            weight = len(fitting) + 1 if name in marked else 1
            counts[form.decimal, form.thousands] = counts.get((form.decimal, form.thousands), 0) + weight
    most = max(counts.values())
    signs = tuple(dict.fromkeys(sign for name in marked for sign in fitting[name][0].signs))
    best = [NumberForm(*key, signs) for key, count in counts.items() if count == most]
    words = [word for name in fitting for word in columns[name] if not word.isdigit()]
    differ = next((word for word in words if len({n for form in best if (n := form.read(word)) is not None}) > 1), None)
    best.sort(
        key=lambda form: _rank(
            form, certain=differ is None or len({f.decimal for f in best}) == 1, semicolons=semicolons
        )
    )
    chosen = best[0]
    if differ is None:
        best.sort(key=lambda form: form.thousands is not None)
        chosen, unsure = best[0], None
    else:
        read = chosen.read(differ)
        other = next(n for form in best if (n := form.read(differ)) is not None and n != read)
        unsure = (differ, other)
    shape = (chosen.decimal, chosen.thousands)
    read_by = [name for name in fitting if shape in {(f.decimal, f.thousands) for f in fitting[name]}]
    return NumberGuess(
        chosen,
        tuple(name for name in read_by if name in marked or _reads_otherwise(columns[name], chosen)),
        tuple(name for name in fitting if name not in read_by),
        unsure,
        max(shown[marked[0]], key=len),
        chosen.decimal == "."
        or not any("." in word and is_plain_number(word) for name in marked for word in columns[name]),
    )


def _list_marked(words: Sequence[str], forms: Sequence[NumberForm]) -> list[str]:
    """The words that no program wrote, and that one of the forms reads."""
    strange = [word for word in words if not is_plain_number(word)]
    return [word for word in strange if any(form.read(word) is not None for form in forms)]


def _rank(form: NumberForm, *, certain: bool, semicolons: bool) -> tuple[bool, bool]:
    """Of readings that differ: where the decimal sign is certain, the other one parts thousands; else three digits behind a comma are
    thousands, unless semicolons part the cells.
    """
    pair = form.thousands == ("." if form.decimal == "," else ",")
    return (not pair, False) if certain else (form.decimal != ("," if semicolons else "."), not pair and not semicolons)


def _reads_otherwise(words: Sequence[str], form: NumberForm) -> bool:
    """Whether a number that a program could have written means another in this form."""
    return any(form.read(word) != float(word) for word in words)


def _read_words(opened: Sequence[FileCells]) -> dict[str, list[str]]:
    """The first different words of each column of words, without those for no value."""
    words: dict[str, list[str]] = {}
    for file in opened:
        texts = [name for name, kind in file.scan.collect_schema().items() if kind == pl.String]
        try:
            head = file.scan.select(texts).head(column_types.HEAD_ROWS).collect()
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
            continue  # only the careful reader can read it, and reports what is wrong
        for column in head.iter_columns():
            bare = column_types.strip_words(column, file.format.list_absent_words(column.name))
            words[column.name] = [
                *words.get(column.name, ()),
                *bare.drop_nulls().unique(maintain_order=True).head(FORM_WORDS),
            ]
    return words
