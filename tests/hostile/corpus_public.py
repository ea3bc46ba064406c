"""What public tables brought: row numbers, few rows, rare classes, a class called None, few different rows, ids of few rows each."""

from __future__ import annotations

from tests.hostile.case import Case, at, csv, cycle, houses

CLASSES = {"kind": "classification", "target": "town"}
FEW = {"day": cycle("1st", "2nd"), "size": cycle("small", "large", "small"), "rooms": cycle("1", "2", "3", "4", "2")}

CASES = (
    Case(
        "a row number under a name of its own",
        csv(houses(seqno=lambda i, _: str(i + 1))),
        "warn",
        ("'seqno'", "id"),
        "written by a program before each row: it says where a row stands in the file",
    ),
    Case(
        "a row number in a file that is sorted by the target",
        csv(
            {
                name: [cell for _, cell in sorted(zip(map(float, houses()["price"]), cells, strict=True))]
                for name, cells in houses().items()
            }
            | {"rownames": [str(i) for i in range(200)]}
        ),
        "stop",
        ("'rownames'", "problem.ignore"),
        "it gives the target away; init leaves it out by itself",
    ),
    Case(
        "35 rows in folds",
        csv(houses(35)),
        "pass",
        (),
        "few, and enough where each row tunes and judges in turn",
        split={"strategy": "kfold"},
    ),
    Case(
        "30 rows in folds",
        csv(houses(30)),
        "pass",
        (),
        "the fewest with which a lap may go on",
        split={"strategy": "kfold"},
    ),
    Case(
        "50 years in order",
        csv(houses(50, day=lambda i, _: str(1950 + i))),
        "stop",
        ("50 rows", "60", "kfold"),
        "too few for the newest to judge: init proposes folds",
        problem={"time": "day"},
        split={"strategy": "time"},
    ),
    Case(
        "a class of one row",
        csv(houses(town=at(7, "Rom"))),
        "stop",
        ("'Rom' (1)", "classes:town"),
        "nobody can learn it from one row: init sets it aside and says so",
        problem=CLASSES,
        split={"strategy": "stratified"},
    ),
    Case(
        "a class called None",
        csv(houses(town=cycle("None", "some", "marked"))),
        "warn",
        ("no label", "'town'"),
        "no value by its word, a class by its company: init keeps it, data.format.keep_words does",
        problem=CLASSES,
        split={"strategy": "stratified"},
    ),
    Case(
        "rows of few combinations",
        csv(houses(1000, **FEW, price=cycle("0", "1", "1"))),
        "warn",
        ("combinations",),
        "class, sex and age group of each passenger: repeats are no copies, and all can be learned from",
        problem={"kind": "classification"},
        split={"strategy": "stratified"},
    ),
    Case(
        "an id of four rows each",
        csv(houses(400, route_id=lambda i, _: str(7000 + i // 4))),
        "pass",
        (),
        "a panel: init leaves the id out",
    ),
    Case(
        "dates with the day of the week",
        csv(houses(day=lambda i, v: f"Monday the {v}")),
        "warn",
        ("'day'", "free text"),
        "words, as nobody reads them as dates; init points to them",
    ),
    Case(
        "an input that indicates one class",
        csv(houses(town=cycle("Ulm", "Bonn", "Kiel"), in_ulm=cycle("1", "0", "0"))),
        "pass",
        (),
        "it may be known before or made from the class: init asks",
        problem=CLASSES,
        split={"strategy": "stratified"},
    ),
)
