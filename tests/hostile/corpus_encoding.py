"""Tables in the wrong bytes: encodings, byte order marks, NUL, cut characters."""

from __future__ import annotations

from tests.hostile.case import Case, at, csv, houses

GOOD = csv(houses())
TEXT = GOOD.decode()
BOM = b"\xef\xbb\xbf"


def town(word: str, encoding: str, row: int = 4) -> bytes:
    """One town in an encoding of its own."""
    return csv(houses(town=at(row, "@@"))).replace(b"@@", word.encode(encoding))


CASES = (
    Case(
        "UTF-16 little-endian with BOM",
        b"\xff\xfe" + TEXT.encode("utf-16-le"),
        "stop",
        ("UTF-16", "UTF-8"),
        "Excel's 'Unicode text'. The bytes say what they are: name it, do not guess at the cells",
    ),
    Case(
        "UTF-16 big-endian with BOM",
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        "stop",
        ("UTF-16", "UTF-8"),
        "as above, other byte order",
    ),
    Case("UTF-16 little-endian bare", TEXT.encode("utf-16-le"), "stop", ("UTF-16",), "every other byte is NUL"),
    Case("UTF-16 big-endian bare", TEXT.encode("utf-16-be"), "stop", ("UTF-16",), "every other byte is NUL"),
    Case(
        "UTF-32 with BOM",
        b"\xff\xfe\x00\x00" + TEXT.encode("utf-32-le"),
        "stop",
        ("UTF-32",),
        "its BOM begins like UTF-16's: a remedy for UTF-16 would leave NULs",
    ),
    Case(
        "Latin-1 cell",
        town("Köln", "latin-1"),
        "stop",
        ("line 6", "'town'", "UTF-8", "'ö'"),
        "reading it as UTF-8 fails, guessing an encoding makes two towns of one: ask",
    ),
    Case(
        "Latin-1 header",
        csv(houses(), {"size": "@@"}).replace(b"@@", "Größe".encode("latin-1")),
        "stop",
        ("line 1", "header", "UTF-8"),
        "the fault is in the names",
    ),
    Case(
        "cp1252 euro",
        town("5 €", "cp1252"),
        "stop",
        ("line 6", "'town'", "Windows-1252", "'€'"),
        "byte 0x80 exists in Windows-1252 only: Latin-1 has a control character there",
    ),
    Case(
        "Shift-JIS cell",
        town("東京", "shift_jis"),
        "stop",
        ("line 6", "'town'", "UTF-8"),
        "any single-byte encoding would 'read' it as rubbish",
    ),
    Case("GB18030 cell", town("北京市", "gb18030"), "stop", ("line 6", "'town'", "UTF-8"), "as Shift-JIS"),
    Case("KOI8-R cell", town("Москва", "koi8-r"), "stop", ("line 6", "'town'", "UTF-8"), "as Shift-JIS"),
    Case("EBCDIC", TEXT.encode("cp037"), "stop", ("line 1", "UTF-8"), "from a mainframe: not even line ends"),
    Case(
        "two encodings in one file",
        csv(houses(town=lambda i, v: "Köln" if i < 100 else v)) + "2020-12-01,1,2,Köln,9\n".encode("latin-1"),
        "stop",
        ("line 202", "'town'", "UTF-8"),
        "two exports glued: UTF-8 at first, Latin-1 at the end. The line shows where",
    ),
    Case(
        "a character cut at the end",
        GOOD[:-1] + b"\xc3",
        "stop",
        ("line 201", "UTF-8"),
        "a copy that broke off in mid-character",
    ),
    Case(
        "surrogates in UTF-8",
        csv(houses(town=at(4, "@@"))).replace(b"@@", b"\xed\xa0\xbd\xed\xb8\x80"),
        "stop",
        ("line 6", "'town'", "UTF-8"),
        "CESU-8, as some databases write emoji",
    ),
    Case(
        "BOM",
        BOM + GOOD,
        "pass",
        (),
        "Excel writes it; the first column's name does not hold it",
        problem={"time": "day"},
        reads={"day": ("2020-01-01T00:00:00",)},
    ),
    Case("BOM alone", BOM, "stop", ("empty",), "three bytes that say nothing: an empty export"),
    Case("BOM and line ends", BOM + b"\r\n\r\n", "stop", ("empty",), "as empty as above"),
    Case(
        "BOM twice",
        BOM + BOM + GOOD,
        "pass",
        (),
        "the second one is a blank without width before a name, and no part of it",
        problem={"time": "day"},
    ),
    Case(
        "BOM in the middle",
        GOOD + BOM + GOOD,
        "stop",
        ("line 202",),
        "two exports glued with cat: header and BOM stand among the rows",
    ),
    Case(
        "NUL in a number", csv(houses(size=at(4, "1\x002"))), "stop", ("line 6", "NUL"), "no number; not UTF-16 either"
    ),
    Case(
        "NUL in a word, late in the file",
        csv(houses(5000, town=at(4900, "Ulm\x00"))),
        "stop",
        ("line 4902", "NUL"),
        "'Ulm' with a NUL looks like Ulm and is another town: nobody would find it",
    ),
    Case(
        "end-of-file mark of DOS",
        GOOD + b"\x1a",
        "stop",
        ("line 202",),
        "one byte that makes a line with one cell",
    ),
    Case(
        "no-break spaces around cells",
        csv(houses(town=lambda i, v: f"\u00a0{v}" if i % 2 else f"{v}\u00a0", size=at(0, "100.5\u00a0"))),
        "pass",
        (),
        "blank to the eye, so blank to us: towns stay three, sizes numbers",
        reads={"size": (100.5,)},
    ),
    Case(
        "beyond the basic plane",
        csv(houses(town=lambda i, v: v + " 🏠👩‍🚀𝔘")),
        "pass",
        (),
        "correct UTF-8 of four bytes a character",
    ),
)
