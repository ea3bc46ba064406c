"""Columns of types that no CSV has: in Parquet, readable or not."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from tests.hostile.case import Case, houses
from tests.hostile.corpus_parquet import array

# A row a day from 2020-01-01 on.
SECONDS = [1_577_836_800 + 86400 * i for i in range(200)]

TYPES = (
    Case(
        "a dictionary in Parquet",
        array("town", lambda pa: pa.array(houses()["town"]).dictionary_encode()),
        "pass",
        (),
        "the same words",
        reads={"town": (houses()["town"][0],)},
    ),
    Case(
        "a dictionary of numbers in Parquet",
        array("rooms", lambda pa: pa.array([1, 2] * 100).dictionary_encode()),
        "pass",
        (),
        "the same numbers",
        reads={"rooms": (1, 2)},
    ),
    Case(
        "decimals in Parquet",
        array("size", lambda pa: pa.array([Decimal(i % 50) / 4 for i in range(200)], pa.decimal128(20, 2))),
        "pass",
        (),
        "exact numbers",
        reads={"size": (0.0, 0.25)},
    ),
    Case(
        "wide decimals in Parquet",
        array("size", lambda pa: pa.array([Decimal(i % 50) for i in range(200)], pa.decimal256(60, 2))),
        "stop",
        ("'size'", "decimal256", "decimal128"),
        "numbers of up to 76 digits, which nothing here can compute with: name the type, do not round in silence",
    ),
    Case(
        "half floats in Parquet",
        array("size", lambda pa: pa.array([float(i % 50) for i in range(200)]).cast(pa.float16())),
        "pass",
        (),
        "small numbers",
        reads={"size": (0.0, 1.0)},
    ),
    Case(
        "lists in Parquet",
        array("box", lambda pa: pa.array([[i, 1] for i in range(200)])),
        "stop",
        ("'box'", "problem.ignore"),
        "no column",
    ),
    Case(
        "structs in Parquet",
        array("box", lambda pa: pa.array([{"a": i} for i in range(200)])),
        "stop",
        ("'box'", "problem.ignore"),
        "no column",
    ),
    Case(
        "maps in Parquet",
        array("box", lambda pa: pa.array([[("a", i)] for i in range(200)], pa.map_(pa.string(), pa.int64()))),
        "stop",
        ("'box'", "problem.ignore"),
        "no column",
    ),
    Case(
        "bytes in Parquet",
        array("box", lambda pa: pa.array([b"\xff\x00"] * 200)),
        "stop",
        ("'box'", "problem.ignore"),
        "pictures, perhaps",
    ),
    Case(
        "nulls in Parquet", array("pool", lambda pa: pa.nulls(200)), "stop", ("'pool'", "empty"), "a column of nothing"
    ),
    Case(
        "NaN and null in Parquet",
        array("size", lambda pa: pa.array([float("nan"), None, *map(float, range(198))])),
        "pass",
        (),
        "both are missing",
        reads={"size": (None, None, 0.0)},
    ),
    Case(
        "infinity in Parquet",
        array("size", lambda pa: pa.array([float("inf"), *map(float, range(199))])),
        "stop",
        ("'size'", "infinite"),
        "as in a CSV",
    ),
    Case(
        "empty text in Parquet",
        array("town", lambda pa: pa.array(["", " ", None, "Ulm", "Bonn"] * 40)),
        "pass",
        (),
        "nothing, as in a CSV: no fourth town",
        reads={"town": (None, None, None, "Ulm")},
    ),
    Case(
        "text that is no UTF-8 in Parquet",
        array("town", lambda pa: pa.Array.from_buffers(pa.string(), 200, pa.array([b"\xff\xfe"] * 200).buffers())),
        "stop",
        ("damaged", "UTF-8"),
        "a writer that did not check",
    ),
    Case(
        "ids beyond int64 in Parquet",
        array("nr", lambda pa: pa.array([2**64 - 1 - i for i in range(200)], pa.uint64())),
        "pass",
        (),
        "as floats they would all be equal",
        problem={"id": "nr"},
    ),
    Case(
        "years beyond Python in Parquet",
        array("built", lambda pa: pa.array([i * 10**16 for i in range(200)], pa.timestamp("us"))),
        "stop",
        ("'built'",),
        "up to the year 65,000: nanoseconds taken for microseconds",
    ),
    Case(
        "overflow of times in Parquet",
        array("built", lambda pa: pa.array([2**62 + i for i in range(200)], pa.timestamp("ms"))),
        "stop",
        ("'built'",),
        "as microseconds they would wrap round, in silence",
    ),
    Case(
        "zones in Parquet",
        array(
            "day",
            lambda pa: pa.array(SECONDS, pa.timestamp("s", tz="Europe/Berlin")),
        ),
        "pass",
        (),
        "instants",
        problem={"time": "day"},
        reads={"day": ("2020-01-01T00:00:00",)},
    ),
    Case(
        "a zone by its offset",
        array("day", lambda pa: pa.array(SECONDS, pa.timestamp("s", tz="-05:00"))),
        "pass",
        (),
        "instants",
        problem={"time": "day"},
        reads={"day": ("2020-01-01T00:00:00",)},
    ),
    Case(
        "a zone by its offset of half an hour",
        array("day", lambda pa: pa.array(SECONDS, pa.timestamp("s", tz="+05:30"))),
        "pass",
        (),
        "instants",
        problem={"time": "day"},
        reads={"day": ("2020-01-01T00:00:00",)},
    ),
    Case(
        "a zone that nobody knows",
        array(
            "day",
            lambda pa: pa.array(SECONDS, pa.timestamp("s", tz="Mars/Olympus")),
        ),
        "stop",
        ("'day'", "'Mars/Olympus'", "UTC"),
        "instants all the same, but who writes so may have written more that is wrong",
        problem={"time": "day"},
    ),
    Case(
        "times of day in Parquet",
        array("hour", lambda pa: pa.array([i % 24 * 300 for i in range(200)], pa.time32("s"))),
        "pass",
        (),
        "seconds",
        reads={"hour": (0.0, 300.0)},
    ),
)
CASES = tuple(replace(case, file="t.parquet") for case in TYPES)
