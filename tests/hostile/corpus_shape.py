"""Tables of the wrong shape: too little, ragged, quoted wrongly, glued, too wide, and rows that repeat."""

from __future__ import annotations

from tests.hostile.case import Case, at, csv, cycle, houses

GOOD = csv(houses())
LINES = GOOD.decode().splitlines()
HEADER, ROWS = LINES[0], LINES[1:]


def lines(*rows: str, header: str = HEADER) -> bytes:
    return ("\n".join([header, *rows]) + "\n").encode()


def with_row(row: int, text: str) -> bytes:
    """Another line in place of a data row (from 0)."""
    return lines(*ROWS[:row], text, *ROWS[row + 1 :])


def wide(columns: int, rows: int = 80) -> bytes:
    more = {f"c{i}": [str((i * 7919 + j * 104729) % 9973) for j in range(rows)] for i in range(columns)}
    return csv({**houses(rows), **more})


CASES = (
    Case("no bytes", b"", "stop", ("is empty", "Export"), "an export that failed"),
    Case("blank lines only", b"\n \n\n", "stop", ("is empty", "Export"), "nothing in it either"),
    Case("header only", lines(), "stop", ("no rows", "Export"), "0 rows"),
    Case("header without line end", HEADER.encode(), "stop", ("no rows", "Export"), "0 rows"),
    Case("1 row", lines(*ROWS[:1]), "stop", ("1 row", "at least 40"), "nothing to learn, tune and judge with"),
    Case("3 rows", lines(*ROWS[:3]), "stop", ("3 rows", "at least 40"), "as above"),
    Case("39 rows", lines(*ROWS[:39]), "stop", ("39 rows", "at least 40"), "one short of the limit"),
    Case("1 column", csv({"price": houses()["price"]}), "stop", ("one column", "'price'"), "nothing to learn from"),
    Case(
        "fixed widths",
        GOOD.replace(b",", b"   "),
        "stop",
        ("one column", "';'"),
        "columns aligned by blanks: to a CSV reader this is one column",
    ),
    Case(
        "a cell too few", with_row(98, "2020-04-08,100,3,Ulm"), "stop", ("line 100", "4 cells", "5 columns"), "ragged"
    ),
    Case("a cell too many", with_row(98, ROWS[98] + ",7"), "stop", ("line 100", "6 cells", "5 columns"), "ragged"),
    Case(
        "an unquoted comma",
        with_row(98, "2020-04-08,100,3,Ulm, West,300"),
        "stop",
        ("line 100", "6 cells", "quotes"),
        "the usual reason for one cell too many: say so",
    ),
    Case(
        "row names without a name",
        lines(*(f"{i},{row}" for i, row in enumerate(ROWS))),
        "warn",
        ("'Unnamed: 0'",),
        "R writes row names without a header: every line is one longer",
        reads={"Unnamed: 0": (0, 1), "day": ("2020-01-01T00:00:00",)},
    ),
    Case(
        "a nameless first column",
        lines(*(f"{i},{row}" for i, row in enumerate(ROWS)), header="," + HEADER),
        "warn",
        ("'Unnamed: 0'",),
        "pandas writes its index so, and calls it so when it reads it",
        reads={"Unnamed: 0": (0, 1), "day": ("2020-01-01T00:00:00",)},
    ),
    Case(
        "a delimiter at each line's end",
        lines(*(f"{row}," for row in ROWS), header=HEADER + ","),
        "pass",
        (),
        "a column of nothing, and without a name",
    ),
    Case("cut in the last line", GOOD[:-12], "stop", ("line 201", "cells"), "a copy that broke off"),
    Case(
        "a title above the header",
        b"Sales of 2020\n" + GOOD,
        "stop",
        ("line 1", "skip_rows: 1"),
        "the header is in line 2",
    ),
    Case(
        "a title above the header, declared",
        b"Sales of 2020;;\n\n" + GOOD,
        "pass",
        (),
        "the user says where the header is",
        format={"skip_rows": 2},
        reads={"day": ("2020-01-01T00:00:00",)},
    ),
    Case(
        "a title padded by a spreadsheet",
        b"Sales of 2020,,,,\n" + GOOD,
        "stop",
        ("line 1", "skip_rows: 1"),
        "as many cells as the header, all but one empty: its names would be none",
    ),
    Case(
        "a delimiter at the end of each row but the header",
        lines(*(f"{row}," for row in ROWS)),
        "pass",
        (),
        "what a spreadsheet makes of a column that was deleted",
        reads={"day": ("2020-01-01T00:00:00",)},
    ),
    Case(
        "a decimal comma in each row, cells parted by commas",
        lines(*(row.replace(".", ",", 1) for row in ROWS)),
        "stop",
        ("line 2", "6 cells", "5 columns"),
        "no row name: the cells would all be one place too far",
    ),
    Case(
        "comments among the rows, declared",
        lines("# by hand", *ROWS[:5], '# "later', *ROWS[5:]),
        "pass",
        (),
        "the user says what is a comment",
        format={"comment": "#"},
        reads={"day": ("2020-01-01T00:00:00",)},
    ),
    Case(
        "a comment above the header",
        b"# made by hand, 2020\n" + GOOD,
        "stop",
        ("line 1", "# made by hand", "comment: '#'"),
        "as above",
    ),
    Case("Excel's sep= line", b"sep=,\n" + GOOD, "pass", (), "Excel's hint to itself: no header"),
    Case(
        "the header again in the middle",
        lines(*ROWS[:100], HEADER, *ROWS[100:]),
        "stop",
        ("line 102",),
        "two exports glued with cat",
    ),
    Case(
        "no header",
        lines(*ROWS[1:], header=ROWS[0]),
        "stop",
        ("problem.target", "'price'", "line 1", "header: false"),
        "the first row is data",
    ),
    Case(
        "no header, declared",
        lines(*ROWS[1:], header=ROWS[0]),
        "pass",
        (),
        "the user names the columns, and no row is lost",
        format={"header": ["day", "size", "rooms", "town", "price"]},
        reads={"day": ("2020-01-01T00:00:00", "2020-01-02T00:00:00")},
    ),
    Case(
        "three faults at once",
        csv(houses(size=at(9, "many"), day=at(3, "soon")), {"rooms": "town"}),
        "stop",
        ("'town' appears 2 times", "'many' on line 11"),
        "who fixes one after the other runs the command three times",
    ),
    Case(
        "a column name twice",
        csv(houses(), {"rooms": "size"}),
        "stop",
        ("'size'", "2 times", "name of its own"),
        "which one would be learned from?",
    ),
    Case(
        "a quote that never ends",
        with_row(98, '2020-04-08,100,3,"Ulm,300'),
        "stop",
        ("line 100", "quote"),
        "it swallows the rest of the file: the line where it opens is what helps",
    ),
    Case(
        "a quote that never ends, long after",
        csv(houses(30_000, town=at(20, "@@"))).replace(b"@@", b'"Ulm'),
        "stop",
        ("line 22", "quote"),
        "as above in a file of more than one reading block",
    ),
    Case(
        "quotes inside a bare cell",
        csv(houses(town=cycle("@@", "Bonn"))).replace(b"@@", b'Ulm "West"'),
        "pass",
        (),
        "no quote at the cell's start: the quotes are letters (5\" pipe)",
        reads={"town": ('Ulm "West"', "Bonn")},
    ),
    Case(
        "commas, quotes and line ends in quotes",
        csv(houses(town=cycle('a,b "c"\nd', "Bonn"))),
        "pass",
        (),
        "correct quoting",
        reads={"town": ('a,b "c"\nd', "Bonn")},
    ),
    Case(
        "CRLF",
        csv(houses(), end="\r\n"),
        "pass",
        (),
        "Windows' line ends",
        reads={"price": (float(ROWS[0].split(",")[-1]),)},
    ),
    Case("CR alone", csv(houses(), end="\r"), "pass", (), "line ends of the old Macintosh", problem={"time": "day"}),
    Case(
        "line ends mixed",
        b"".join(line.encode() + (b"\r\n" if i % 2 else b"\n") for i, line in enumerate(LINES)),
        "pass",
        (),
        "edited on two machines",
        reads={"town": (ROWS[0].split(",")[3], ROWS[1].split(",")[3])},
    ),
    Case("blank lines between", GOOD.replace(b"\n", b"\n\n"), "pass", (), "no cells, so no rows"),
    Case(
        "a line of delimiters at the end", GOOD + b",,,,\n", "pass", (), "no cells, so no row", problem={"time": "day"}
    ),
    Case("no line end at the end", GOOD.rstrip(), "pass", (), "as many editors leave it"),
    Case("semicolons", csv(houses(), sep=";"), "pass", (), "one meaning only"),
    Case("tabs", csv(houses(), sep="\t"), "pass", (), "one meaning only"),
    Case("pipes", csv(houses(), sep="|"), "pass", (), "one meaning only"),
    Case(
        "two delimiters",
        lines(*(row.replace(",", ";") if i >= 100 else row for i, row in enumerate(ROWS))),
        "stop",
        ("line 102", "1 cell"),
        "two exports glued, each with its own delimiter",
    ),
    Case("1,000 columns", wide(1000), "pass", (), "wide, and nothing wrong with it", init=False),
    Case(
        "300 columns of nothing",
        csv({**houses(), **{f"c{i}": [""] * 200 for i in range(300)}}),
        "stop",
        ("'c0'", "295 more"),
        "each is a fault, but 300 sentences help nobody: name some, and count",
    ),
    Case(
        "a cell of 5 MB",
        csv(houses(note=lambda i, _: f"the house number {i} has " + ("a view " * 750_000 if i == 50 else "a view"))),
        "warn",
        ("'note'",),
        "a long text is a text: not learned from, and no reason to fail",
    ),
    Case(
        "90 % of the rows twice",
        lines(*ROWS[:100], *(ROWS[i % 10] for i in range(900))),
        "warn",
        ("repeat", "90"),
        "ten rows would count a hundred times, and stand on both sides",
    ),
    Case("each row twice", lines(*ROWS, *ROWS), "warn", ("200 rows", "repeat"), "a join that went wrong"),
    Case("all rows equal", lines(*([ROWS[0]] * 200)), "stop", ("'price'", "constant"), "there is nothing to learn"),
    Case(
        "all features equal",
        csv(houses(day=cycle("2020-01-01"), size=cycle("1"), rooms=cycle("2"), town=cycle("Ulm"))),
        "stop",
        ("no column is left",),
        "the target varies, and nothing tells why",
    ),
    Case("one column constant", csv(houses(town=cycle("Ulm"))), "warn", ("'town'", "same value"), "it says nothing"),
    Case(
        "a column of nothing",
        csv(houses(pool=cycle(""))),
        "stop",
        ("'pool'", "empty", "problem.ignore"),
        "somebody expects something in it",
    ),
    Case(
        "rows in any order of time",
        csv({name: column[100:] + column[:100] for name, column in houses().items()}),
        "pass",
        (),
        "ingest sorts",
        problem={"time": "day"},
        split={"strategy": "time"},
        reads={"day": ("2020-01-01T00:00:00", "2020-01-02T00:00:00")},
    ),
)
