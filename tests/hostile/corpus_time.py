"""Times that lie: two orders, zones, daylight saving, gaps, repetitions, ends of the world."""

from __future__ import annotations

import datetime as dt

from tests.hostile.case import Case, at, csv, cycle, houses

TIME = {"time": "day"}
DAYS = [dt.date.fromisoformat(day) for day in houses()["day"]]


def days(form: str) -> list[str]:
    return [day.strftime(form) for day in DAYS]


def hours(zone: str) -> list[str]:
    """A row an hour, in wall-clock time of one fixed offset."""
    return [f"{dt.datetime(2020, 3, 28) + dt.timedelta(hours=i):%Y-%m-%dT%H:%M:%S}{zone}" for i in range(200)]


CASES = (
    Case(
        "day and month in both orders",
        csv(
            houses(
                day=[a if i % 2 else b for i, (a, b) in enumerate(zip(days("%d/%m/%Y"), days("%m/%d/%Y"), strict=True))]
            )
        ),
        "stop",
        ("problem.time", "'day'", "line", "2024-12-31"),
        "two people filled it in",
        problem=TIME,
    ),
    Case(
        "day or month first: cannot be told",
        csv(houses(day=lambda i, _: f"0{i % 9 + 1}/0{i % 7 + 1}/2020")),
        "stop",
        ("problem.time", "'day'", "day and month", "line 2"),
        "either order fits every row, and gives another history",
        problem=TIME,
    ),
    Case(
        "day or month first, as a feature",
        csv(houses(built=lambda i, _: f"0{i % 9 + 1}/0{i % 7 + 1}/20{i % 21:02d}")),
        "warn",
        ("'built'",),
        "nobody asked for it as a time: it is not learned from",
    ),
    Case(
        "one date the other way round",
        csv(houses(day=[*days("%Y-%m-%d")[:99], "13/02/2020", *days("%Y-%m-%d")[100:]])),
        "stop",
        ("'day'", "dates", "line 101", "'13/02/2020'"),
        "typed by hand",
        problem=TIME,
    ),
    Case(
        "two digits for a year",
        csv(houses(day=days("%d.%m.%y"))),
        "stop",
        ("problem.time", "'day'", "line 2", "2024-12-31"),
        "20 is a day, a month and a year",
        problem=TIME,
    ),
    Case(
        "two digits for a year, in America",
        csv(houses(day=days("%m/%d/%y"))),
        "pass",
        (),
        "some days are past 12, and no other order has slashes",
        problem=TIME,
        reads={"day": ("2020-01-01T00:00:00", "2020-01-02T00:00:00")},
    ),
    Case(
        "months in words",
        csv(houses(day=[f"{dt.date(2000 + i // 12, i % 12 + 1, 1):%b-%y}" for i in range(200)])),
        "pass",
        (),
        "a month is its first day",
        problem=TIME,
        reads={"day": ("2000-01-01T00:00:00", "2000-02-01T00:00:00")},
    ),
    Case(
        "quarters",
        csv(houses(day=[f"{1950 + i // 4}Q{i % 4 + 1}" for i in range(200)])),
        "pass",
        (),
        "a quarter is its first day",
        problem=TIME,
        reads={"day": ("1950-01-01T00:00:00", "1950-04-01T00:00:00")},
    ),
    Case(
        "German dates",
        csv(houses(day=days("%d.%m.%Y"))),
        "pass",
        (),
        "points part days from months one way only",
        problem=TIME,
        reads={"day": ("2020-01-01T00:00:00", "2020-01-02T00:00:00")},
    ),
    Case(
        "30 February",
        csv(houses(day=at(60, "2020-02-30"))),
        "stop",
        ("'day'", "line 62", "'2020-02-30'"),
        "an impossible date",
        problem=TIME,
    ),
    Case(
        "month 13",
        csv(houses(day=at(60, "2020-13-01"))),
        "stop",
        ("'day'", "line 62"),
        "an impossible date",
        problem=TIME,
    ),
    Case(
        "a leap second",
        csv(houses(day=at(60, "2016-12-31T23:59:60"))),
        "stop",
        ("'day'", "line 62"),
        "real, and no clock here has it",
        problem=TIME,
    ),
    Case(
        "dates and times",
        csv(houses(day=lambda i, v: f"{v} 12:30:00" if i % 2 else v)),
        "pass",
        (),
        "a date is a midnight",
        problem=TIME,
        reads={"day": ("2020-01-01T00:00:00", "2020-01-02T12:30:00")},
    ),
    Case(
        "zones mixed",
        csv(houses(day=lambda i, v: v + ["T10:00:00+02:00", "T00:00:00Z", "T23:00:00-05:00"][i % 3])),
        "pass",
        (),
        "instants, each with its offset: UTC makes them one",
        problem=TIME,
        reads={"day": ("2020-01-01T08:00:00", "2020-01-02T00:00:00", "2020-01-04T04:00:00")},
    ),
    Case(
        "zones for some",
        csv(houses(day=lambda i, v: f"{v}T10:00:00" + ("+09:00" if i == 60 else ""))),
        "stop",
        ("'day'", "zone", "line 62"),
        "which clock did the others read? Nine hours, and the order of rows, hang on it",
        problem=TIME,
    ),
    Case(
        "a name for a zone",
        csv(houses(day=lambda i, v: f"{v} 10:00:00 CET")),
        "stop",
        ("problem.time", "'day'", "line 2"),
        "abbreviations are ambiguous (IST is three zones)",
        problem=TIME,
    ),
    Case(
        "an hour that did not exist",
        csv(houses(day=hours(""))),
        "pass",
        (),
        "02:30 of 29 March 2020 is missing in Berlin, but nobody said Berlin: naive is UTC",
        problem=TIME,
    ),
    Case(
        "an hour that came twice",
        csv(houses(day=[f"2020-10-25T02:{i % 60:02d}:{i // 60:02d}+0{2 - i % 2}:00" for i in range(200)])),
        "pass",
        (),
        "offsets tell the first 02:30 from the second",
        problem=TIME,
        reads={"day": ("2020-10-25T00:00:00",)},
    ),
    Case(
        "a time without value",
        csv(houses(day=at(60, ""))),
        "stop",
        ("problem.time", "'day'", "empty", "line 62"),
        "when?",
        problem=TIME,
    ),
    Case("no times at all", csv(houses(day=cycle(""))), "stop", ("problem.time", "'day'"), "when?", problem=TIME),
    Case(
        "words for times",
        csv(houses()),
        "stop",
        ("problem.time", "'town'", "line 2", "2024-12-31"),
        "no time",
        problem={"time": "town"},
    ),
    Case(
        "infinite time",
        csv(houses(rooms=at(60, "inf"))),
        "stop",
        ("problem.time", "'rooms'", "infinite"),
        "later than everything, for ever",
        problem={"time": "rooms"},
    ),
    Case(
        "one time for all",
        csv(houses(day=cycle("2020-01-01"))),
        "stop",
        ("problem.time", "'day'"),
        "no older rows to teach, no newer ones to judge",
        problem=TIME,
        split={"strategy": "time"},
    ),
    Case(
        "times that repeat",
        csv(houses(day=lambda i, v: str(dt.date(2020, 1, 1 + i // 10)))),
        "pass",
        (),
        "ten rows a day: as usual",
        problem=TIME,
        split={"strategy": "time"},
    ),
    Case(
        "next year",
        csv(houses(day=lambda i, v: str(dt.date(2090, 1, 1) + dt.timedelta(days=i)))),
        "pass",
        (),
        "in the future, but stages have no clock: the same table must be judged alike on every day",
        problem=TIME,
        split={"strategy": "time"},
    ),
    Case(
        "the end of time as a time",
        csv(houses(day=lambda i, v: "9999-12-31" if i % 50 == 7 else v)),
        "stop",
        ("problem.time", "'day'", "9999-12-31"),
        "'open' in disguise: these rows would judge, and no later lap would ever see a newer row",
        problem=TIME,
        split={"strategy": "time"},
    ),
    Case(
        "the end of time as a feature",
        csv(houses(valid_to=lambda i, v: "9999-12-31" if i % 5 else "2021-06-30")),
        "warn",
        ("'valid_to'", "9999-12-31"),
        "'open' in disguise: 8,000 years to a model",
    ),
    Case(
        "the beginning of time",
        csv(houses(day=lambda i, v: "1970-01-01" if i % 50 == 7 else v)),
        "stop",
        ("problem.time", "'day'", "1970-01-01"),
        "zero seconds since 1970: a missing time in disguise, and a missing time stops",
        problem=TIME,
        split={"strategy": "time"},
    ),
    Case(
        "before the calendar",
        csv(houses(day=at(60, "0001-01-01"))),
        "stop",
        ("problem.time", "'day'", "1-01-01"),
        "a missing time in disguise, as .NET writes it",
        problem=TIME,
        split={"strategy": "time"},
    ),
)
