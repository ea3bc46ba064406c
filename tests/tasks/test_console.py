"""What a command prints: plain on a pipe, folded and coloured on a terminal, and what was live goes away."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from windvane.tasks.console import Console, format_table

PROGRAM = """
from windvane.tasks.console import Console, LiveTable
with Console() as console:
    console.print("  [bold]as it is[/]")
    console.working("busy")
    console.print("  note: " + "word " * 40)
    table = LiveTable(console)
    table.show([{"service": "mlflow", "state": "ready", "address": "-"}])
    table.print("  all ready")
    console.working("last")
import sys
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"rich"}))
"""


def test_a_pipe_gets_one_plain_line_a_message_whatever_the_environment_says() -> None:
    env = {**os.environ, "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1", "COLUMNS": "20"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:7] == [
        "  [bold]as it is[/]",
        "  note: " + "word " * 40,
        "  mlflow  ready  -",
        "  all ready",
        "  service  state  address",
        "  mlflow   ready  -",
        "rich",
    ]
    assert done.stderr == ""


def test_a_terminal_gets_folded_and_coloured_lines_and_its_cursor_back() -> None:
    parent, child = pty.openpty()
    env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    subprocess.run([sys.executable, "-c", PROGRAM], env=env, stdin=child, stdout=child, stderr=child, check=True)
    os.close(child)
    shown = b""
    try:
        while chunk := os.read(parent, 65_536):
            shown += chunk
    except OSError:  # Linux's way to say that the other end is closed
        pass
    os.close(parent)
    text = shown.decode()
    assert "  [bold]as it is[/]\r\n" in text
    assert "busy" in text
    assert "\x1b[33m  note: word" in text
    assert "word\x1b[0m\r\n\x1b[33m    word" in text  # folded, and indented below
    assert "\x1b[32mready" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0


def test_a_table_is_plain_text_with_numbers_to_the_right() -> None:
    rows = [{"name": "[red]", "n": 1, "value": 1234.5}, {"name": "世界", "n": 12, "value": float("nan")}]
    assert format_table(rows) == "  name    n  value\n  [red]   1  1,234\n  世界   12      -"
    assert format_table([]) == ""


PRINTING = """
import ctypes, os, subprocess, sys
from windvane.tasks.console import Console
print("before")
with Console(json=True) as console:
    console.print("a line for people")
    print("by python")
    os.write(1, b"by descriptor\\n")
    subprocess.run(["echo", "by a child process"])
    ctypes.CDLL(None).printf(b"by a library in C\\n")
    console.print_result({"loss": float("nan"), "bound": float("-inf"), "name": "ä"})
    print("between")
print("after")
"""


def test_with_json_standard_output_is_one_document_whatever_prints() -> None:
    done = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["before", '{"loss": null, "bound": null, "name": "\\u00e4"}', "after"]
    printed = ["a line for people", "by python", "by descriptor", "by a child process", "by a library in C", "between"]
    assert sorted(done.stderr.splitlines()) == sorted(printed)


def test_with_json_a_failure_gives_standard_output_back(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with Console(json=True):
            os.write(1, b"diverted\n")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    os.write(1, b"not diverted\n")
    assert capfd.readouterr() == ("not diverted\n", "diverted\n")
