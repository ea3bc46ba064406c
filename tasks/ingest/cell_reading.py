"""One reading of a cell, for training, requests, `score` and label files: what a table file is, how its cells are parted,
and which words mean that a cell has no value. Imports nothing heavy: the scoring service uses it.
"""

from __future__ import annotations

import csv
import hashlib
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, cast

CSV_ENDINGS, JSON_ENDINGS, PARQUET_ENDINGS = (".csv", ".tsv"), (".jsonl", ".ndjson", ".json"), (".parquet",)
WRITTEN_ENDINGS = (*CSV_ENDINGS, *PARQUET_ENDINGS, *JSON_ENDINGS)
# Workbooks, which are read as text tables and never written.
SHEET_ENDINGS = (".xlsx", ".xls", ".ods")
TEXT_ENDINGS = (*CSV_ENDINGS, *SHEET_ENDINGS)
KNOWN_ENDINGS = (*WRITTEN_ENDINGS, *SHEET_ENDINGS)
# How a file may be packed as a whole.
PACKED_ENDINGS = {".gz": "gzip", ".zst": "zstd"}

# Cells that people and programs write for "no value"; pandas' own list, without the ones that could be a word.
MISSING_WORDS = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A")
# As bare cells are searched in them: where a column keeps such words as values (data.format.keep_words), only the empty cell
# has no value.
ABSENT_WORDS, ABSENT_IF_KEPT = frozenset(MISSING_WORDS), frozenset(("",))
# A number in which the zero means something is a code: 01067 is a town, 1067 is none.
CODE_PATTERN = r"^0[0-9]+$"
_CODE, _DIGITS = re.compile(CODE_PATTERN), re.compile(r"[0-9]+")

# What may part thousands, by the sign that stands for it in data.format; blanks are of any width.
_THOUSANDS = {",": ",", ".": r"\.", "'": "['\u2019]", " ": "[ \u00a0\u2009\u202f]"}
_BLANKS = f"{_THOUSANDS[' ']}*"
PERCENT_SIGN = "%"
# What is written beside an amount and is no part of the number.
KNOWN_SIGNS = (
    *(PERCENT_SIGN, "$", "€", "£", "¥", "₹", "₩", "₽", "₺", "₫", "₪", "₴", "₱", "฿", "US$", "R$", "C$", "A$"),
    *(
        "kr",
        "kr.",
        "zł",
        "Kč",
        "Fr.",
        "EUR",
        "USD",
        "GBP",
        "CHF",
        "JPY",
        "CNY",
        "INR",
        "SEK",
        "NOK",
        "DKK",
        "PLN",
        "CZK",
    ),
    *("BRL", "CAD", "AUD", "ZAR", "TRY"),
)
_PLAIN_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class NumberForm:
    """How people write the numbers of a table (data.format): the decimal sign, what parts thousands, and signs beside them.

    `required`: each number has a sign, as percentages do: 12 % and 0.12 must not be in one column.
    """

    decimal: str = "."
    thousands: str | None = None
    signs: tuple[str, ...] = ()
    required: bool = False

    @cached_property
    def pattern(self) -> str:
        """The parts of a number as groups, for Python and polars alike: bracket, minus, sign, minus, digits, sign, minus, bracket."""
        # A point means the same to everybody, unless it parts thousands.
        point = r"\." if self.decimal == "." else "," if self.thousands == "." else "[.,]"
        whole = "[0-9]+"
        if self.thousands is not None:
            mark = _THOUSANDS[self.thousands]
            indian = r"[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}|" if self.thousands == "," else ""
            whole = rf"(?:{indian}[1-9][0-9]{{0,2}}(?:{mark}[0-9]{{3}})+|[0-9]+)"
        digits = rf"(?:{whole}(?:{point}[0-9]*)?|{point}[0-9]+)(?:[eE][+-]?[0-9]+)?"
        signs = "|".join(map(re.escape, sorted(self.signs, key=len, reverse=True)))
        minus, sign = "([-+\u2212]?)", f"((?:{signs})?)" if signs else "()"
        before = rf"^(\(?){minus}{_BLANKS}{sign}{_BLANKS}{minus}"
        return rf"{before}({digits}){_BLANKS}{sign}([-\u2212]?)(\)?)$"

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)

    def is_sound(self, there: Sequence[Any]) -> Any:
        """Whether the parts go together. `there`: for each group of the pattern, 1 where it is there, else 0; numbers or columns."""
        opened, lead, sign, inner, _, behind, trail, closed = there
        marks, signs = opened + lead + inner + trail, sign + behind
        return (opened == closed) & (marks <= 1) & (signs <= 1) & (signs >= int(self.required))

    def read(self, word: str) -> float | None:
        """The number that a word without blanks around it is; None: it is none of this form. 12 % is 12."""
        found = self._compiled.match(word)
        if found is None or not self.is_sound([int(bool(part)) for part in found.groups()]):
            return None
        opened, lead, _, inner, digits, _, trail, _ = found.groups()
        if self.mark_pattern is not None:
            digits = re.sub(self.mark_pattern, "", digits)
        value = float(digits.replace(",", "."))
        return -value if opened or trail or lead + inner in ("-", "\u2212") else value

    @property
    def mark_pattern(self) -> str | None:
        """What is taken out of the digits; None: nothing."""
        return None if self.thousands is None else _THOUSANDS[self.thousands]

    def write(self, number: float) -> str:
        """A number as this form has it, so that read() gives it back to the last bit."""
        return repr(number).replace(".", self.decimal)

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> NumberForm | None:
        """What a stored model holds of it."""
        return None if content is None else cls(**{**content, "signs": tuple(content["signs"])})

    def describe(self) -> str:
        """As params.yaml has it."""
        keys = [f"decimal: {_quote(self.decimal)}"]
        keys += [f"thousands: {_quote(self.thousands)}"] if self.thousands else []
        keys += [f"signs: [{', '.join(map(_quote, self.signs))}]"] if self.signs else []
        return f"{{{', '.join(keys)}}}"

    def narrow(self, words: Iterable[str]) -> NumberForm:
        """The form of a column: of the signs only the first that is there; percentages have one each."""
        words = words if self.signs else ()
        sign = next((sign for word in words for sign in find_signs(word, self.signs)), None)
        return replace(self, signs=() if sign is None else (sign,), required=sign == PERCENT_SIGN)


def _quote(sign: str) -> str:
    return sign if sign.isalpha() else f'"{sign}"'


def find_signs(word: str, signs: Sequence[str]) -> list[str]:
    """Which of the signs are before or behind the digits of a word, the longest first."""
    bare = word.strip("()+-\u2212 \u00a0\u2009\u202f")
    return [s for s in sorted(signs, key=len, reverse=True) if bare.startswith(s) or bare.endswith(s)]


def is_plain_number(word: str) -> bool:
    """Whether a program wrote this number, or could have."""
    return _PLAIN_NUMBER.fullmatch(word) is not None


# From this share on, words are meant to be numbers, and the rest are slips.
NUMBER_SHARE = 0.9
# Words that show how numbers are written.
FORM_WORDS = 1_000


def list_number_forms(words: Sequence[str]) -> list[NumberForm]:
    """The forms in which all of the words are numbers, the simplest first; where there is none, nearly all of them."""
    if sum(any(map(str.isdigit, word)) for word in words) < NUMBER_SHARE * len(words) or not words:
        return []
    strange = [word for word in words if not is_plain_number(word)]
    signs = tuple(dict.fromkeys(found[0] for word in strange if (found := find_signs(word, KNOWN_SIGNS))))
    forms = [
        NumberForm(decimal, thousands, signs)
        for thousands in (None, ".", ",", "'", " ")
        for decimal in (".", ",")
        if decimal != thousands
    ]
    odd = [sum(form.read(word) is None for word in words) for form in forms]
    most = 0 if 0 in odd else len(words) - NUMBER_SHARE * len(words)
    return [form for form, count in zip(forms, odd, strict=True) if count <= most]


def suggest_number_forms(words: Sequence[str]) -> list[NumberForm]:
    """The simplest form for each different reading of these words as numbers; several: the words do not show which."""
    found: dict[tuple[float | None, ...], NumberForm] = {}
    for form in list_number_forms(words):
        found.setdefault(tuple(form.read(word) for word in words), form)
    return list(found.values())


# How dates are written besides ISO 8601, for strptime. Of two digits 68 is 2068 and 69 is 1969, as POSIX has it.
_DAY_FORMS = (
    *(
        "%Y/%m/%d",
        "%Y.%m.%d",
        "%d.%m.%Y",
        "%d-%b-%Y",
        "%d-%B-%Y",
        "%d %b %Y",
        "%d %B %Y",
        "%b %d, %Y",
        "%B %d, %Y",
        "%b %d %Y",
        "%B %d %Y",
        "%d-%b-%y",
        "%d %b %y",
    ),
    *("%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%d/%m/%y", "%m/%d/%y", "%d-%m-%y", "%m-%d-%y"),
)
_CLOCK_FORMS = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
# A month, quarter, week or year is its first day; of a week that is Monday, as ISO 8601 has it.
_MONTH_FORMS = ("%b %Y", "%B %Y", "%b-%Y", "%B-%Y", "%b-%y", "%b %y", "%m/%Y")
_YEAR = r"(?P<year>\d{4})"
# Periods that strptime does not know, each called by an example.
PERIOD_PATTERNS = {
    "2014Q1": re.compile(rf"{_YEAR}[ -]?[Qq](?P<quarter>[1-4])"),
    "Q1 2014": re.compile(rf"[Qq](?P<quarter>[1-4])[ /-]?{_YEAR}"),
    "2014W05": re.compile(rf"{_YEAR}[ -]?[Ww](?P<week>\d{{1,2}})"),
    "2014M05": re.compile(rf"{_YEAR}[ -]?[Mm](?P<month>\d{{1,2}})"),
    "FY2014": re.compile(rf"FY[ -]?{_YEAR}"),
}
DATE_FORMS = (*(day + clock for day in _DAY_FORMS for clock in _CLOCK_FORMS), *_MONTH_FORMS, *PERIOD_PATTERNS)


def choose_date_forms(forms: Sequence[str], dates: str | None) -> list[str]:
    """Of several forms that fit those of the order `dates` (data.format.dates: day_first, month_first; None: no order is known)."""
    first = {"day_first": "%d", "month_first": "%m", None: ""}[dates]
    return [form for form in forms if form.startswith(first)] if len(forms) > 1 else list(forms)


def read_written_dates(values: Sequence[Any], dates: str | None = None) -> list[datetime | None] | None:
    """Cells as dates of one form other than ISO; None: they are not, or day and month cannot be distinguished in any of them.

    dates: see choose_date_forms.
    """
    words = [None if value is None or str(value).strip() in ABSENT_WORDS else str(value).strip() for value in values]
    different, readings = {word for word in words if word is not None}, dict[str, dict[str | None, datetime]]()
    for form in DATE_FORMS:
        with suppress(ValueError):
            reading: dict[str | None, datetime] = {word: _read_written_date(word, form) for word in different}
            if reading not in readings.values():
                readings[form] = reading
    fitting = choose_date_forms(list(readings), dates)
    return [readings[fitting[0]].get(word) for word in words] if len(fitting) == 1 else None


def _read_written_date(word: str, form: str) -> datetime:
    """Raises ValueError where a word is of another form."""
    if form not in PERIOD_PATTERNS:
        return datetime.strptime(word, form)
    return read_period(word, form)


def read_period(word: str, form: str) -> datetime:
    """The first day of a period of a form of PERIOD_PATTERNS. Raises ValueError where a word is of another, or there is no such week."""
    if (found := PERIOD_PATTERNS[form].fullmatch(word)) is None:
        raise ValueError(word)
    parts = {name: int(digits) for name, digits in found.groupdict().items()}
    if "week" in parts:
        return datetime.fromisocalendar(parts["year"], parts["week"], 1)
    return datetime(parts["year"], parts.get("month", 3 * parts.get("quarter", 1) - 2), 1)


def read_ending(path: Path) -> str:
    """The format in a file's name, in lower case: ".csv" of both a.csv and a.csv.gz."""
    name = path.name.lower()
    for packed in PACKED_ENDINGS:
        name = name.removesuffix(packed)
    return Path(name).suffix


def find_packing(path: Path) -> str | None:
    """How a file is compressed as a whole, as pyarrow calls it; None: it is not."""
    return PACKED_ENDINGS.get(path.suffix.lower())


def find_table_ending(name: str) -> str | None:
    """The ending that decides how to read a file, such as .csv.gz; None for a file that is no table."""
    path = Path(name)
    kind = read_ending(path)
    return kind + (path.suffix.lower() if find_packing(path) else "") if kind in KNOWN_ENDINGS else None


def describe_endings(endings: Sequence[str] = KNOWN_ENDINGS) -> str:
    """What a table's name may end in, for people."""
    return f"{', '.join(endings)}, each also with {' or '.join(PACKED_ENDINGS)}"


# Raised while a packed file is read that is damaged.
UNPACK_ERRORS = (EOFError, OSError, zlib.error)


def detect_delimiter(header: str) -> str:
    """A header names columns: the character that is there most often parts them. Ties go to the comma."""
    return max(",;\t|", key=header.count)


# MLflow takes no key of more than 250 letters.
LONGEST_NAME, _KEPT_LETTERS, _HASH_LETTERS = 200, 180, 12


# Around a name also those blanks that have no width, which no one sees.
_NAME_BLANKS = "".join(
    map(
        chr,
        (
            *range(9, 14),
            32,
            0x85,
            0xA0,
            0x1680,
            *range(0x2000, 0x200C),
            0x2028,
            0x2029,
            0x202F,
            0x205F,
            0x2060,
            0x3000,
            0xFEFF,
        ),
    )
)


def call_column(name: str) -> str:
    """What a column of this name is called: in Unicode's composed form, without blanks around it, and with a hash in place of what is
    behind 180 of more than 200 letters.
    """
    bare = name.strip() if name.isascii() else unicodedata.normalize("NFC", name).strip(_NAME_BLANKS)
    if len(bare) <= LONGEST_NAME:
        return bare
    return f"{bare[:_KEPT_LETTERS]}…{hashlib.sha256(bare.encode('utf-8', 'replace')).hexdigest()[:_HASH_LETTERS]}"


def is_cut_name(name: str) -> bool:
    """Whether call_column cut this name, by its form."""
    return len(name) == _KEPT_LETTERS + 1 + _HASH_LETTERS and name[_KEPT_LETTERS] == "…"


# How pandas calls a column without a name, by its place from 0.
UNNAMED = "Unnamed: {}"


def has_quoted_names(cells: Sequence[str]) -> bool:
    """Whether each cell of a header is in single quotes, which are no part of a name then."""
    bare = [cell.strip() for cell in cells]
    return bool(bare) and all(len(cell) > 2 and cell[0] == cell[-1] == "'" for cell in bare)


def strip_quoted_names(cells: Sequence[str]) -> list[str]:
    """The cells of a header without the single quotes that all of them are in."""
    return [cell.strip()[1:-1] for cell in cells] if has_quoted_names(cells) else list(cells)


def name_columns(cells: Sequence[str]) -> tuple[str, ...]:
    """The columns' names by the cells of a header, see call_column; one without a name is called as pandas calls it."""
    named = enumerate(strip_quoted_names(cells))
    return tuple(call_column(cell) or UNNAMED.format(place) for place, cell in named)


# Rows that show how a text table begins.
START_ROWS = 50
_EXCEL_HINT = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)
_DATE_WORD = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d.*)?")


@dataclass(frozen=True)
class TableStart:
    """How a text table begins. `above`: so many lines are above its header, which takes `lines` lines; `header`: its cells, or the
    names of a table without one (then lines is 0). `rows`: the first below. `labels`: its rows have one cell more than
    the header, a name first ("first") or nothing at the end ("last").
    """

    delimiter: str
    above: int
    lines: int
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    hinted: bool = False
    labels: str | None = None


def find_table_start(
    lines: Sequence[str], header: bool | Sequence[str] = True, comment: str | None = None, skip_rows: int = 0
) -> TableStart | None:
    """How a table begins whose first lines, with their ends, are given; None: they hold nothing. header, comment and skip_rows are
    those of data.format. Raises csv.Error where the header cannot be read.
    """
    above, delimiter = skip_rows, None
    while above < len(lines):
        line = lines[above]
        if (hint := _EXCEL_HINT.fullmatch(line)) and delimiter is None:
            delimiter = hint[1]
        elif _holds_cells(line) and not (comment and line.startswith(comment)):
            break
        above += 1
    else:
        return None
    hinted, first = delimiter is not None, lines[above]
    body = [line for line in lines[above:] if not (comment and line.startswith(comment))]
    if delimiter is None:
        delimiter, common = detect_delimiter(first), _find_common_delimiter(body[1:] or body)
        # A title has none of the signs that part the cells below it.
        if header is not True or not any(delimiter in line for line in body[1:START_ROWS]):
            delimiter = common
    names, used = tuple[str, ...](), 0
    if header is True:
        # A quote that stays open goes on in the next line.
        head = csv.reader(body if first.count('"') % 2 else body[:1], delimiter=delimiter)
        names, used = tuple(next(head)), head.line_num
    rows: list[tuple[str, ...]] = []
    with suppress(csv.Error):
        rows += [tuple(row) for row in islice(csv.reader(body[used:], delimiter=delimiter), START_ROWS) if row]
    if header is not True:
        width = max((len(row) for row in rows), default=0)
        names = tuple(header) if header else tuple(f"column_{place}" for place in range(1, width + 1))
    return TableStart(delimiter, above, used, names, tuple(rows), hinted, _find_labels(names, rows))


def _holds_cells(line: str) -> bool:
    """Whether a line of a text table has more than signs that part cells."""
    return bool(line.strip(' \t\r\n,;|"'))


def _find_common_delimiter(lines: Sequence[str]) -> str:
    """What parts cells where no line names columns: it is as often in each line. A comma may be a decimal sign as well."""
    some = [line for line in lines[:START_ROWS] if line.strip()] or [""]
    counts = {mark: {line.count(mark) for line in some} for mark in ";\t|,"}
    even = [mark for mark, found in counts.items() if len(found) == 1 and 0 not in found]
    return even[0] if even else detect_delimiter(some[0])


def _find_labels(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str | None:
    """Whether each row has a cell more than the header: R's row names, or a delimiter at each line's end."""
    if len(rows) < 2 or any(len(row) != len(names) + 1 for row in rows):
        return None
    if not any(row[-1].strip() for row in rows):
        return "last"
    first = [row[0] for row in rows]
    counted = (
        first == [str(number) for number in range(int(first[0]), int(first[0]) + len(first))]
        if first[0].isdigit()
        else False
    )
    named = len(set(first)) == len(first) and not any(map(_looks_like_data, first))
    return "first" if counted or named else None


def _looks_like_data(cell: str) -> bool:
    """Whether a cell is a number or a date, and no name."""
    bare = cell.strip()
    written = any(map(str.isdigit, bare)) and not any(map(str.isalpha, bare))
    return written or is_plain_number(bare) or _DATE_WORD.fullmatch(bare) is not None


_TOTAL = re.compile(
    r"(grand |sub-?)?(total|totals|sum|sums|summe|gesamt|gesamtsumme|zwischensumme|insgesamt|totale|totaux|somme|suma|soma|totaal|average|"
    r"mean|mittelwert|durchschnitt|moyenne|media)( .*)?:?",
    re.IGNORECASE,
)


def may_be_total(cells: Sequence[str]) -> bool:
    """Whether a row is called as a total is, by its first cell that is filled, and has more than that name."""
    filled = [cell.strip() for cell in cells if cell.strip()]
    return len(filled) > 1 and _TOTAL.fullmatch(filled[0]) is not None


def suggest_start_keys(start: TableStart, lines: Sequence[str]) -> dict[str, Any]:
    """Keys of data.format without which the header is looked for in the wrong line: comment or skip_rows."""
    rows = [row for row in (start.header, *start.rows) if any(map(str.strip, row))]
    filled = [sum(1 for cell in row if cell.strip()) for row in rows]
    if lines[start.above].startswith("#") and len(rows) > 1 and len(rows[0]) != len(rows[-1]):
        return {"comment": "#"}
    # Titles fill a cell or two from the left, and below them is a row of names.
    width, titles = max(filled[1:], default=0), 0
    while titles < len(rows) - 2 and rows[titles][0].strip() and filled[titles] <= max(1, width // 3) < width:
        titles += 1
    if not titles or filled[titles] != width or any(map(_looks_like_data, rows[titles])):
        return {}
    filled_lines = [number for number, line in enumerate(lines) if number >= start.above and _holds_cells(line)]
    return {"skip_rows": filled_lines[titles]}


def has_data_in_header(start: TableStart) -> bool:
    """Whether the header looks like one more row: numbers and dates as those below it, or words that come again."""
    data = 0
    years = [cell for cell in start.header if cell.isdigit()]
    counted = (
        len(years) > 2
        and len({int(b) - int(a) for a, b in pairwise(years)} - {0}) == 1
        and len(set(years)) == len(years)
    )
    for place, cell in enumerate(map(str.strip, start.header)):
        below = [row[place].strip() for row in start.rows if place < len(row) and row[place].strip()]
        like = sum(map(_looks_like_data, below)) >= NUMBER_SHARE * len(below)
        if not cell or (below and like and not _looks_like_data(cell)):
            return False  # a name above numbers, or none
        if cell.isdigit() and (counted or 1800 <= int(cell) <= 2200):
            continue  # a year may be the name of a column
        data += _looks_like_data(cell) or cell in below
    return bool(start.rows) and data >= max(1, len(start.header) / 2)


def find_code_width(words: Iterable[str]) -> int | None:
    """How a column of codes such as 01067 writes them: the length of all its words of digits, 0 where it varies; None: none
    of the words is a code, and a number may name them.
    """
    widths: set[int] = set()
    coded = False
    for word in words:
        if _DIGITS.fullmatch(word):
            widths.add(len(word))
            coded = coded or _CODE.match(word) is not None
    if not coded:
        return None
    return widths.pop() if len(widths) == 1 else 0


class RaggedRow(ValueError):
    """A line with another number of cells than the header, or with a quote in the wrong place."""


def read_delimited_rows(lines: Iterable[str], delimiter: str, added: int = 0) -> Iterator[tuple[str, list[str]]]:
    """Each row of a text table as it is written and as its cells, the header first; blank lines are left out.

    `lines` keep their ends; `added`: how many of them the user does not know. Raises RaggedRow naming the line.
    """
    held: list[str] = []

    def noted() -> Iterator[str]:
        for line in lines:
            held.append(line)
            yield line

    reader = csv.reader(noted(), delimiter=delimiter, strict=True)
    columns = begins = 0
    try:
        for cells in reader:
            # A quoted cell may span lines: a row is named by its first.
            where, begins, written = begins + 1 - added, reader.line_num, "".join(held)
            held.clear()
            if not cells:
                continue
            columns = columns or len(cells)
            if len(cells) != columns:
                raise RaggedRow(
                    f"line {where} has {len(cells)} cells where the header names {columns} columns. Fix it; a cell that holds "
                    f"{delimiter!r} needs quotes around it"
                )
            yield written, cells
    except csv.Error as e:
        raise RaggedRow(f"line {reader.line_num - added}: {e}. Fix that line") from None


def format_delimited_rows(rows: Iterable[Iterable[Any]], delimiter: str) -> list[str]:
    """Rows as lines of a text table, without their ends; None is an empty cell, and a float keeps its last bit."""
    written: list[str] = []

    class _Lines:
        write = written.append

    # The end is taken off again: a cell with a line break gets its quotes for it.
    csv.writer(cast("Any", _Lines), delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    return [line[:-2] for line in written]
