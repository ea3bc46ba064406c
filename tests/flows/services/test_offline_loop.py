"""Nothing that runs here asks anything of the internet: the whole loop on a machine without a route, every connection on record."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.projects import ROOT, Folder, missing
from tests.support.running_up import standing, until

pytestmark = pytest.mark.slow

# What a library reads to find out that it is only being tested, and then keeps quiet as it would not for a user.
QUIETING = (
    "CI",
    "PYTEST_CURRENT_TEST",
    "GITHUB_ACTIONS",
    "DO_NOT_TRACK",
    "ORT_DISABLE_TELEMETRY",
    "MLFLOW_DISABLE_TELEMETRY",
)
# What a program writes when it wanted to reach something and could not.
ATTEMPTS = re.compile(
    r"network is unreachable|temporary failure in name resolution|name or service not known|getaddrinfo|"
    r"no address associated|nodename nor servname|max retries exceeded|telemetry|posthog|segment\.io|amplitude",
    re.IGNORECASE,
)
# An address that is not of this machine, in strace's words; a name server's is one, too.
ELSEWHERE = re.compile(
    r'sin_addr=inet_addr\("(?!127\.|0\.0\.0\.0)([\d.]+)"\)|inet_pton\(AF_INET6, "(?!::1"|::")([^"]+)"'
)


def loop(folder: Folder) -> None:
    """Everything that a user does, one after the other."""
    for arguments in (
        ["init", "data/txhousing.csv", "--target", "median", "--time", "ts", "--ignore", "volume"],
        ["check"],
    ):
        assert folder.run(*arguments).status == 0
    folder.set(search__trials=3, search__candidates=["linear", "boosting"], schedule__monitor="* * * * *")
    assert folder.train()["verdict"] == "promoted"
    rows = (folder.path / "data" / "txhousing.csv").read_text().splitlines()
    (folder.path / "new.csv").write_text("\n".join([rows[0], *rows[-50:]]) + "\n")
    for arguments in (
        ["score", "new.csv", "scored.csv", "--log"],
        ["monitor"],
        ["replay", "--from", "2015-01-01"],
        ["versions"],
        ["status"],
    ):
        ran = folder.run(*arguments)
        assert ran.status == 0, (arguments, ran.err)
    with standing(folder) as up:
        inputs = [column["name"] for column in up.service("GET", "/model").json()["signature"]["inputs"]]
        row = list(csv.DictReader(rows))[-1]
        body = ",".join(inputs) + "\n" + ",".join(row[name] for name in inputs) + "\n"
        answer = up.service("POST", "/invocations", content=body.encode(), headers={"Content-Type": "text/csv"})
        assert answer.status_code == 200, answer.text
        last = folder.path / ".windvane" / "watch" / "last.json"
        before = last.stat().st_mtime_ns
        assert folder.run("monitor", "--acknowledge").status == 0
        until(lambda: last.exists() and last.stat().st_mtime_ns != before, 180, "a pass on schedule")


def logs(folder: Path) -> dict[str, list[str]]:
    """Lines of every log and text below the project that speak of an attempt to reach something."""
    found = {}
    for path in (p for p in folder.rglob("*") if p.is_file() and p.suffix in (".log", ".txt", "")):
        told = [line for line in path.read_text(errors="replace").splitlines() if ATTEMPTS.search(line)]
        if told:
            found[path.relative_to(folder).as_posix()] = told[:3]
    return found


def test_the_whole_loop_asks_nothing_of_the_internet(tmp_path: Path) -> None:
    for program in ("strace", "unshare", "ip"):
        if shutil.which(program) is None:
            missing(program)
    if subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode != 0:
        missing("the right to make a network namespace")
    (tmp_path / "project" / "data").mkdir(parents=True)
    rows = (ROOT / "data" / "txhousing.csv").read_text().splitlines()
    table = tmp_path / "project" / "data" / "txhousing.csv"
    table.write_text("\n".join([rows[0], *(row for row in rows[1:] if row.split(",")[1] >= "2011")]) + "\n")
    traced = tmp_path / "connections.txt"
    code = (
        "import sys; from pathlib import Path; from tests.flows.services import test_offline_loop as t; "
        "t.loop(t.Folder(Path(sys.argv[1])))"
    )
    strace = f"strace --seccomp-bpf -f -qq -o {traced} -e trace=connect,sendto,sendmsg,sendmmsg -e signal=none"
    shell = ["unshare", "-rn", "sh", "-c", f'ip link set lo up && exec {strace} "$@"', "sh"]
    done = subprocess.run(
        [*shell, sys.executable, "-c", code, str(table.parent.parent)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k not in QUIETING} | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = traced.read_text(errors="replace").splitlines()
    assert any("127.0.0.1" in line for line in lines)  # it did listen
    assert [line for line in lines if ELSEWHERE.search(line)] == []
    assert logs(tmp_path / "project") == {}
