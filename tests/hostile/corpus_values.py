"""Words, ids, targets that cannot be learned, and columns that give the target away."""

from __future__ import annotations

from tests.hostile.case import Case, at, csv, cycle, houses

WORDS = (
    Case(
        "formulas",
        csv(houses(town=cycle("=cmd|'/c calc'!A0", "@SUM(1+1)", "+1+1", "-2+3"))),
        "warn",
        ("'town'", "=cmd"),
        "harmless here, but a spreadsheet that opens the scored file would run them",
    ),
    Case(
        "markup in cells",
        csv(houses(town=cycle("<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "Ulm"))),
        "pass",
        (),
        "words like others; the page that shows them must not run them",
    ),
    Case("yes and no", csv(houses(pool=cycle("yes", "no", "no"))), "pass", (), "two categories"),
    Case(
        "true and false",
        csv(houses(pool=cycle("true", "FALSE", "False"))),
        "pass",
        (),
        "one column of truth",
        reads={"pool": (True, False, False)},
    ),
    Case(
        "yes, no, 0, 1",
        csv(houses(pool=cycle("yes", "no", "0", "1"))),
        "warn",
        ("'pool'",),
        "two spellings of one truth: four categories to a model",
    ),
    Case(
        "blanks around words",
        csv(houses(town=lambda i, v: f" {v} " if i % 2 else v)),
        "pass",
        (),
        "three towns, not six",
    ),
    Case(
        "free text",
        csv(houses(note=lambda i, _: f"the house number {i} stands on a hill")),
        "warn",
        ("'note'", "text"),
        "not learned from",
    ),
    Case(
        "an id as a feature",
        csv(houses(customer_id=lambda i, _: str(7919 * i % 10007))),
        "warn",
        ("'customer_id'",),
        "it names rows: a model would learn them by heart",
    ),
    Case(
        "an id that repeats",
        csv(houses(nr=lambda i, _: str(i // 2))),
        "stop",
        ("problem.id", "'nr'", "repeats", "such as 0"),
        "labels that arrive later would find two rows",
        problem={"id": "nr"},
    ),
    Case(
        "an id that mixes types",
        csv(houses(nr=lambda i, _: "none" if i == 7 else str(i))),
        "stop",
        ("'nr'", "mixes types", "line 9", "'none'"),
        "two faults in one: no type, and no id",
        problem={"id": "nr"},
    ),
    Case(
        "an id with gaps",
        csv(houses(nr=lambda i, _: "" if i == 7 else f"A{i}")),
        "stop",
        ("problem.id", "'nr'", "empty in 1 row"),
        "that row could never get its label",
        problem={"id": "nr"},
    ),
)

CLASSES = {"kind": "classification", "target": "town"}
TARGETS = (
    Case(
        "target absent",
        csv(houses(), {"price": "Price "}),
        "stop",
        ("problem.target", "'price'", "Did you mean", "'Price'"),
        "a typo",
    ),
    Case(
        "target constant",
        csv(houses(price=cycle("7"))),
        "stop",
        ("problem.target", "'price'", "constant"),
        "nothing to learn",
    ),
    Case(
        "target all missing", csv(houses(price=cycle(""))), "stop", ("problem.target", "'price'", "empty"), "no labels"
    ),
    Case(
        "target with gaps",
        csv(houses(price=at(5, ""))),
        "warn",
        ("1 of 200 rows", "'price'"),
        "that row teaches nothing",
    ),
    Case(
        "target of words",
        csv(houses()),
        "stop",
        ("problem.target", "'town'", "classification"),
        "wrong kind",
        problem={"target": "town"},
    ),
    Case(
        "target of dates",
        csv(houses()),
        "stop",
        ("problem.target", "'day'", "dates"),
        "no amount",
        problem={"target": "day"},
    ),
    Case(
        "target mixed",
        csv(houses(price=at(50, "sold"))),
        "stop",
        ("'price'", "line 52", "'sold'"),
        "and problem.ignore is no remedy for a target",
    ),
    Case(
        "one class",
        csv(houses(town=cycle("Ulm"))),
        "stop",
        ("problem.target", "'town'", "constant"),
        "one class",
        problem=CLASSES,
    ),
    Case(
        "a rare class",
        csv(houses(town=lambda i, v: "Rom" if i < 3 else v)),
        "stop",
        ("problem.target", "'Rom' (3)", "join them"),
        "three rows cannot stand on three sides",
        problem=CLASSES,
    ),
    Case(
        "amounts as classes",
        csv(houses()),
        "stop",
        ("problem.target", "'price'", "regression"),
        "200 classes",
        problem={"kind": "classification"},
    ),
    Case(
        "classes with control characters",
        csv(houses(town=lambda i, v: f"\x1b[31m{v}\u2028\u202e")),
        "pass",
        (),
        "from a terminal: classes all the same, and a comment in params.yaml",
        problem=CLASSES,
    ),
    Case(
        "classes that differ by a blank",
        csv(houses(town=lambda i, v: v + " " if i < 100 else v)),
        "pass",
        (),
        "three classes, not six",
        problem=CLASSES,
    ),
    Case(
        "classes in capitals and not",
        csv(houses(town=lambda i, v: (v, v.upper(), v.lower(), v)[i % 4])),
        "pass",
        (),
        "three classes, not nine",
        problem=CLASSES,
    ),
)


def outage(i: int, cell: str) -> str:
    return "" if i % 20 == 7 else cell


def noisy(i: int, price: str) -> str:
    return f"{float(price) * 1.19 + (i % 7) / 100:.3f}"


PRICES = houses()["price"]
TOWNS = houses()["town"]
LEAKS = (
    Case(
        "an outage",
        csv(houses(size=outage, rooms=outage, town=outage, price=outage)),
        "warn",
        ("10 of 200 rows", "'price'"),
        "rows that hold nothing but their day are no labels; that size is empty where the price is shows nothing",
    ),
    Case(
        "counts that are all different",
        csv(houses(vehicles=lambda i, _: str(10_000 + i * 1_000_003 % 800_000))),
        "pass",
        (),
        "whole numbers, spread wide: an amount, no id",
    ),
    Case(
        "a copy of the target",
        csv(houses(gross=PRICES)),
        "stop",
        ("'gross'", "problem.ignore"),
        "not there when it counts",
    ),
    Case(
        "a noisy copy of the target",
        csv(houses(gross=[noisy(i, p) for i, p in enumerate(PRICES)])),
        "stop",
        ("'gross'", "problem.ignore"),
        "price with tax, rounded: known only afterwards",
    ),
    Case(
        "the target as text",
        csv(houses(label=[f"EUR {p}" for p in PRICES])),
        "warn",
        ("'label'",),
        "each text is different: not learned from",
    ),
    Case(
        "the class as text",
        csv(houses(region=[f"region of {t}" for t in TOWNS])),
        "stop",
        ("'region'", "problem.ignore"),
        "a new name for each class",
        problem=CLASSES,
    ),
    Case(
        "the class as a number",
        csv(houses(region=[str(["Ulm", "Bonn", "Kiel"].index(t)) for t in TOWNS])),
        "stop",
        ("'region'", "problem.ignore"),
        "its code",
        problem=CLASSES,
    ),
    Case(
        "a column that is empty where the target is",
        csv(houses(price=lambda i, v: "" if i % 4 == 0 else v, sold=lambda i, _: "" if i % 4 == 0 else str(i % 9))),
        "warn",
        ("'price'", "no label"),
        "known only afterwards, perhaps; rows without a label are counted in any case",
    ),
)

CASES = (*WORDS, *TARGETS, *LEAKS)
