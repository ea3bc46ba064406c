"""Numbers that are none, missing values in disguise, and amounts out of reach."""

from __future__ import annotations

from tests.hostile.case import Case, at, csv, cycle, houses

# Read as missing: what people and programs write for "no value" and nobody means as a word.
EMPTY = ("", "NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "<NA>", "#N/A", "   ", '""')
# Also meant as missing somewhere, but a reader that guessed so would be wrong elsewhere: the line is named instead.
OTHER_EMPTY = ("?", "-", "--", ".", "#DIV/0!", "#REF!", r"\N", "missing", "(null)", "NaT")


def slip(name: str, cell: str, why: str) -> Case:
    """One cell in a column of numbers that is none."""
    return Case(
        name,
        csv(houses(size=at(50, cell))),
        "stop",
        ("'size'", "numbers", "line 52", "problem.ignore", repr(cell)),
        why,
    )


def big(name: str, *cells: str, why: str) -> Case:
    return Case(
        name,
        csv(houses(size=lambda i, v: cells[i % len(cells)] if i % 50 == 0 else v)),
        "stop",
        ("'size'", "problem.ignore"),
        why,
    )


CASES = (
    slip("a word among numbers", "many", "a slip of the pen; as a category the whole column would be lost"),
    *(
        slip(f"{cell} for missing", cell, "missing, or a fault upstream: let the user say which")
        for cell in OTHER_EMPTY
    ),
    slip("a number in other digits", "１２３", "full-width digits: a number to Python, no number to most"),
    slip("a typographic minus", "−12.5", "pasted from a text: looks like -12.5"),
    slip("an accountant's minus", "(12.50)", "-12.50 to some, a note to others"),
    slip("a formula among numbers", "=B2*2", "an export of formulas instead of values"),
    slip("a number with a unit", "12 kg", "one cell was typed by hand"),
    slip("a number and a comma", "1,5", "one decimal comma among decimal points: 1.5 or 15?"),
    slip("a date among numbers", "1-Mar", "what Excel makes of 1-3"),
    Case(
        "missing in ten spellings",
        csv(houses(size=lambda i, v: EMPTY[i] if i < len(EMPTY) else v)).replace(b'""""""', b'""'),
        "pass",
        (),
        "all of these mean the same",
        reads={"size": (None,) * len(EMPTY)},
    ),
    Case(
        "blank cells among words",
        csv(houses(town=lambda i, v: ["", "   ", "\t", "NULL"][i] if i < 4 else v)),
        "pass",
        (),
        "an empty cell is a missing one, however it is written: no fourth town",
        reads={"town": (None, None, None, None)},
    ),
    Case(
        "quoted and unquoted nothing",
        csv(houses(town=at(0, "@@"), rooms=at(1, ""))).replace(b"@@", b'""'),
        "pass",
        (),
        'empty string against missing: in a CSV "" says no more than nothing does',
        reads={"town": (None,)},
    ),
    Case(
        "half numbers, half words",
        csv(houses(size=lambda i, v: v if i % 2 else f"big {i}")),
        "warn",
        ("'size'",),
        "it may be codes: not learned from, and said so",
    ),
    Case(
        "thousands marks",
        csv(houses(price=lambda i, v: f"1,{i:03d}.50")),
        "stop",
        ("'price'", "'1,000.50'", "line 2", 'data.format: {decimal: ".", thousands: ","}'),
        "a comma is a mark here and a decimal comma there",
    ),
    Case(
        "thousands blanks",
        csv(houses(size=lambda i, v: f"1 {i:03d}")),
        "stop",
        ("'size'", "'1 000'", "data.format", 'thousands: " "'),
        "French and Swiss thousands: as words the column would be lost",
    ),
    Case(
        "decimal commas",
        csv(houses(size=lambda i, v: v.replace(".", ",")), sep=";"),
        "stop",
        ("'size'", 'data.format: {decimal: ","}'),
        "read as thousands they would be ten times too large",
    ),
    Case(
        "percent",
        csv(houses(size=lambda i, v: f"{v}%")),
        "stop",
        ("'size'", 'signs: ["%"]'),
        "12 % is 0.12, or 12?",
    ),
    Case(
        "currency", csv(houses(price=lambda i, v: f"${v}")), "stop", ("'price'", 'signs: ["$"]'), "the target: no words"
    ),
    Case("euro behind", csv(houses(size=lambda i, v: f"{v} €")), "stop", ("'size'", 'signs: ["€"]'), "as above"),
    *(
        Case(name, content, "pass", (), why, format=form, reads={"size": (1234.5, -1250.0)})
        for name, content, why, form in (
            (
                "German numbers, declared",
                csv(houses(size=lambda i, v: ["1.234,50", "-1.250"][i] if i < 2 else v.replace(".", ",")), sep=";"),
                "the user says which mark is which",
                {"decimal": ",", "thousands": "."},
            ),
            (
                "Swiss numbers, declared",
                csv(houses(size=lambda i, v: ["1’234.50", "-1'250"][i] if i < 2 else v)),
                "an apostrophe of either shape",
                {"thousands": "'"},
            ),
            (
                "French numbers, declared",
                csv(
                    houses(size=lambda i, v: ["1\u202f234,50", "\u22121\u00a0250"][i] if i < 2 else v.replace(".", ","))
                ),
                "blanks that do not break, and the minus of a typesetter",
                {"decimal": ",", "thousands": " "},
            ),
            (
                "an accountant's dollars, declared",
                csv(houses(size=lambda i, v: ["$1,234.50", "($1,250.00)"][i] if i < 2 else f"${v}")),
                "brackets are a minus in books",
                {"thousands": ",", "signs": ["$"]},
            ),
        )
    ),
    Case(
        "two currencies in one column, declared",
        csv(houses(size=lambda i, v: f"{v} €" if i % 2 else f"${v}")),
        "stop",
        ("'size'", "'", "data.format"),
        "an amount in another currency is another amount",
        format={"signs": ["€", "$"]},
    ),
    Case(
        "percentages and shares in one column, declared",
        csv(houses(size=lambda i, v: f"{v}%" if i % 2 else v)),
        "stop",
        ("'size'", "data.format", "sign"),
        "12% and 0.12 are the same, 12 and 0.12 are not",
        format={"signs": ["%"]},
    ),
    Case(
        "a decimal point where commas are declared",
        csv(houses(size=lambda i, v: "1.234,5" if i % 2 else v)),
        "stop",
        ("'size'", "data.format"),
        "1.234 would be a thousand times as much",
        format={"decimal": ",", "thousands": "."},
    ),
    Case(
        "signs and exponents",
        csv(houses(size=lambda i, v: ["+5", "5.", ".5", "1e2", "-1E+2", "+.5e-1"][i % 6])),
        "pass",
        (),
        "all of these are numbers",
        reads={"size": (5.0, 5.0, 0.5, 100.0, -100.0, 0.05)},
    ),
    Case(
        "leading zeros",
        csv(houses(zip=cycle("01067", "1067", "80331"))),
        "pass",
        (),
        "a zip code: 01067 is Dresden and 1067 is no place. As numbers they would be one",
        reads={"zip": ("01067", "1067", "80331")},
    ),
    Case(
        "ids beyond int64",
        csv(houses(nr=lambda i, _: str(2**64 + i))),
        "pass",
        (),
        "as floats they would all be equal, and the id would seem to repeat",
        problem={"id": "nr"},
        reads={"nr": (str(2**64), str(2**64 + 1))},
    ),
    Case(
        "ids beyond float64",
        csv(houses(nr=lambda i, _: str(2**60 + i) if i else "")),
        "stop",
        ("problem.id", "'nr'", "empty in 1 row"),
        "a gap turns whole numbers into floats, where 2^60 + 1 is 2^60: only the gap may be complained of",
        problem={"id": "nr"},
    ),
    Case(
        "the ends of int64",
        csv(houses(size=cycle(str(2**63 - 1), str(-(2**63)), "0"))),
        "pass",
        (),
        "numbers, if ugly ones; their squares fit into a float",
        reads={"size": (2**63 - 1, -(2**63), 0)},
    ),
    Case(
        "denormals",
        csv(houses(size=cycle("5e-324", "1e-310", "0"))),
        "pass",
        (),
        "small, but numbers",
        reads={"size": (5e-324, 1e-310, 0.0)},
    ),
    Case("minus zero", csv(houses(size=at(0, "-0.0"))), "pass", (), "zero", reads={"size": (0.0,)}),
    big("1e308", "1e308", "-1e308", why="finite, but its square is not: every mean, variance and scaler overflows"),
    big("past float32", "1e39", why="trees and forests compute in float32: to them this is infinite"),
    big("past float64", "1e999", why="infinite once it is read"),
    big("infinite", "inf", "-Infinity", why="no model can learn from it; a division by zero upstream"),
    Case(
        "infinite target",
        csv(houses(price=at(50, "inf"))),
        "stop",
        ("problem.target", "'price'", "infinite"),
        "the mean loss would be infinite",
    ),
    Case(
        "target of 1e308",
        csv(houses(price=at(50, "1e308"))),
        "stop",
        ("problem.target", "'price'"),
        "finite, but its squared error is not",
    ),
)
