"""MLflow's and Prefect's servers as `windvane up` runs them, in two projects at once: who is let in, and what a person sees."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.projects import missing, quick_project
from tests.support.running_up import Up, begun, mine, until
from windvane.serving.http import auth_middleware
from windvane.serving.http.auth_middleware import Credentials
from windvane.tasks import process_environment

pytestmark = pytest.mark.slow

# What both applications answer to, as a client may write it: method, path, and whether it is a web socket.
ROUTES = """
import json, os, sys
from pathlib import Path

def walk(routes, at=""):
    for route in routes:
        if hasattr(route, "original_router"):  # FastAPI keeps an included router as it is
            yield from walk(route.original_router.routes, at + route.include_context.prefix)
        elif hasattr(route, "routes") and not hasattr(route, "methods"):
            yield from walk(route.routes or [], at + route.path)
        elif getattr(route, "methods", None):
            yield from ([method, at + route.path, False] for method in route.methods)
        elif hasattr(route, "path"):
            yield [None, at + route.path, "Mount" not in type(route).__name__]

if sys.argv[1] == "prefect":
    from prefect.server.api.server import create_app
    found = list(walk(create_app().routes))
else:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from windvane.tasks.stores.mlflow_client import MlflowTracker
    found = list(walk(MlflowTracker("p", Path(sys.argv[2]), None).pages(Path(sys.argv[2]) / "files").routes))
    from mlflow.server import app
    found += [[m, rule.rule.replace("<path:", "<").replace("<", "{").replace(">", "}"), False]
              for rule in app.url_map.iter_rules() for m in rule.methods]
print(json.dumps(found))
"""
OPEN = {"mlflow": {"/health"}, "prefect": {"/api/health", "/api/ready"}}
# None of these may ever be imported: they lie in the user's folder, and bear names that Windvane and Prefect have too.
BAIT = ("tasks", "flows", "prefect", "mlflow", "serving", "monitoring", "sitecustomize", "uvicorn")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, Up]]:
    """Two projects, started at the same moment."""
    folders = [quick_project(tmp_path_factory.mktemp("servers") / name) for name in ("one", "two")]
    for folder in folders:
        folder.set(
            project=f"houses-{folder.path.name}", schedule__monitor=None, ports={"mlflow": None, "prefect": None}
        )
        for name in BAIT:
            (folder.path / f"{name}.py").write_text("open('imported', 'a').write(__name__); raise SystemExit(7)\n")
    with begun(folders[0]) as one, begun(folders[1]) as other:
        one.wait()
        other.wait()
        yield one, other


@pytest.fixture(scope="module")
def run(two: tuple[Up, Up]) -> dict[str, Any]:
    """A monitoring run of the first project, made through Prefect's API with the secret, once it is over."""
    made = two[0].ask("prefect", "POST", f"/api/deployments/{deployment(two[0])['id']}/create_flow_run", json={})
    assert made.status_code == 201, made.text
    path = f"/api/flow_runs/{made.json()['id']}"

    def over() -> Any:
        now = two[0].ask("prefect", "GET", path).json()
        return now if now["state_type"] in ("COMPLETED", "FAILED", "CRASHED") else None

    found: dict[str, Any] = until(over, what="the run is over")
    return found


def deployment(up: Up) -> dict[str, Any]:
    name = up.told["project"]
    found: dict[str, Any] = up.ask("prefect", "GET", f"/api/deployments/name/monitor/{name}").json()
    return found


def test_each_of_two_that_boot_together_shows_its_own(two: tuple[Up, Up]) -> None:
    addresses = [{name: at["address"] for name, at in up.told["services"].items()} for up in two]
    for name in ("mlflow", "prefect", "service"):
        assert addresses[0][name] != addresses[1][name]
    for up, other in (two, two[::-1]):
        home = up.folder.path / ".windvane"
        credentials, foreign = Credentials.of(home), Credentials.of(other.folder.path / ".windvane")
        for name in ("mlflow", "prefect", "service"):
            assert auth_middleware.check_identity(up.address(name), credentials) is True
            assert auth_middleware.check_identity(up.address(name), foreign) is False
        found = up.ask("mlflow", "GET", "/api/2.0/mlflow/experiments/search", params={"max_results": 10}).json()
        assert {one["name"] for one in found["experiments"]} == {"Default", up.told["project"]}


def test_a_flow_run_made_through_the_api_is_run_and_imports_nothing_of_the_users(
    two: tuple[Up, Up], run: dict[str, Any]
) -> None:
    assert run["state_type"] == "COMPLETED", run
    assert not [up.folder.path / "imported" for up in two if (up.folder.path / "imported").exists()]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "https://evil.example"},
        {"Authorization": "Bearer " + "0" * 64},
        {"Authorization": "Basic d2luZHZhbmU6"},
        {"Authorization": "Bearer SECRET", "Origin": "https://evil.example"},
        {"Authorization": "Bearer SECRET", "Host": "evil.example"},
        {"Authorization": "Bearer OTHER"},
    ],
)
def test_nobody_else_makes_prefect_run_code(two: tuple[Up, Up], headers: dict[str, str], tmp_path: Path) -> None:
    up, told = two[0], deployment(two[0])
    filled = {k: v.replace("SECRET", up.secret).replace("OTHER", two[1].secret) for k, v in headers.items()}
    at, proof = f"{up.address('prefect')}/api/deployments/{told['id']}", tmp_path / "made"
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {proof}"}}]
    evil = {"pull_steps": steps, "path": "/tmp", "entrypoint": "flows.monitoring.monitor"}
    before = up.ask("prefect", "POST", "/api/flow_runs/count", json={}).text
    answers = [
        httpx.patch(at, json=evil, headers=filled),
        httpx.post(f"{at}/create_flow_run", json={}, headers=filled),
        httpx.request("OPTIONS", at, headers={**filled, "Access-Control-Request-Method": "PATCH"}),
    ]
    assert {answer.status_code for answer in answers} <= {401, 403}
    assert not any("access-control-allow-origin" in answer.headers for answer in answers)
    assert deployment(up)["pull_steps"] == told["pull_steps"]
    assert up.ask("prefect", "POST", "/api/flow_runs/count", json={}).text == before
    assert not proof.exists()


@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_every_route_but_the_named_ones_asks_for_the_secret(two: tuple[Up, Up], name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-c", ROUTES, name, str(tmp_path)],
        env={**os.environ, "PREFECT_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    found = {tuple(one) for one in json.loads(done.stdout.splitlines()[-1])}
    assert len(found) > 150
    address, answered = two[0].address(name), {}
    with httpx.Client(base_url=address, timeout=60) as client:
        for method, path, socket in sorted(found, key=str):
            filled = "/".join("x" if part.startswith("{") else part for part in path.split("/")) or "/"
            if socket:
                with pytest.raises(InvalidStatus, match="403"), connect(f"ws{address[4:]}{filled}"):
                    pass
            else:
                answered[method or "GET", filled] = client.request(method or "GET", filled).status_code
    assert {path for (_, path), status in answered.items() if status not in (401, 403)} == OPEN[name]


@pytest.mark.parametrize("name", ["mlflow", "prefect"])
def test_a_server_answers_under_its_own_names_alone(two: tuple[Up, Up], name: str) -> None:
    up = two[0]
    own = {"Authorization": f"Bearer {up.secret}"}
    port = up.address(name).rsplit(":", 1)[1]
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}"):
        for path in ("/", "/health", "/api/health", f"/?secret={up.secret}"):
            answer = httpx.get(up.address(name) + path, headers={**own, "Host": host})
            assert answer.status_code == 403
    assert httpx.get(up.address(name), headers={**own, "Host": f"localhost:{port}"}).status_code == 200


def test_sockets_of_prefect_ask_for_the_secret(two: tuple[Up, Up]) -> None:
    up, credentials = two[0], Credentials.of(two[0].folder.path / ".windvane")
    at = f"ws{up.address('prefect')[4:]}/api/events/out"
    own = {"Authorization": f"Bearer {credentials.secret}"}
    for headers in ({"Origin": "https://evil.example"}, {**own, "Origin": "https://evil.example"}):
        with pytest.raises(InvalidStatus, match="403"), connect(at, additional_headers=headers):
            pass

    def hello(token: str, **headers: str) -> str:
        with connect(at, subprotocols=["prefect"], additional_headers=headers) as socket:  # type: ignore[list-item]
            socket.send(json.dumps({"type": "auth", "token": token}))
            return str(socket.recv(timeout=30))

    # Prefect's own client brings it in the first message, a page in its cookie.
    assert "auth_success" in hello(credentials.basic)
    assert "auth_success" in hello(
        "", Cookie=f"{credentials.cookie}={credentials.session}", Origin=up.address("prefect")
    )
    for wrong in ("", "windvane:" + "0" * 64):
        with pytest.raises(ConnectionClosed):
            hello(wrong)


def test_the_secret_stands_in_no_log_and_on_no_command_line(two: tuple[Up, Up], run: dict[str, Any]) -> None:
    assert run
    for up in two:
        assert up.ask("mlflow", "GET", "/").status_code == 200
        httpx.get(up.address("mlflow"), params={"secret": up.secret})
        written = [up.folder.path / ".windvane" / "up.json", up.log, *(up.folder.path / ".windvane" / "up").iterdir()]
        assert not [path for path in written if up.secret in path.read_text(errors="replace")]
        assert up.secret not in json.dumps(up.told)
        lines = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                lines.append(" ".join(process.cmdline()))
        assert len(lines) > 10
        assert not [line for line in lines if up.secret in line]


def test_no_process_sends_usage_statistics_or_imports_from_the_folder(two: tuple[Up, Up]) -> None:
    # In the system's temporary folder, which all accounts share, another one's files could stand in the way.
    temporary = str(two[0].folder.path.resolve() / ".windvane" / "tmp")
    wanted = {**process_environment.TELEMETRY_OFF, "PYTHONSAFEPATH": "1", "TMPDIR": temporary}
    processes = mine(two[0].folder)
    assert len(processes) >= 4
    for process in processes:
        told = process.environ()
        # Prefect writes the values of its own settings anew for what it starts: False instead of false.
        same = {name: value for name, value in wanted.items() if told.get(name, "").lower() == value.lower()}
        assert same == wanted


def test_the_projects_commands_find_the_secret_and_a_foreign_server_gets_none(two: tuple[Up, Up]) -> None:
    up = two[1]
    shown = up.folder.run("secret", "--json")
    assert shown.json == {"secret": up.secret}
    text = up.folder.run("secret").out
    assert f"{up.address('mlflow')}/?secret={up.secret}" in text
    assert f"{up.address('prefect')}/?secret={up.secret}" in text
    # Its own server, named by the environment as a stranger would be, and another project's.
    own, other = (f"{one.address('prefect')}/api" for one in (two[1], two[0]))
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom windvane.flows.orchestration import server\n"
        "with server.use_prefect_server(Path('.windvane/prefect').resolve()) as prefect:\n"
        "    prefect.wait()\n    print(prefect.url, os.environ.get('PREFECT_API_AUTH_STRING'))"
    )
    for named, said in (({}, own), ({"PREFECT_API_URL": own}, own), ({"PREFECT_API_URL": other}, other)):
        env = {k: v for k, v in up.folder.environment(named).items() if k != "PREFECT_API_AUTH_STRING"}
        done = subprocess.run(
            [sys.executable, "-P", "-c", code], cwd=up.folder.path, env=env, capture_output=True, text=True, check=True
        )
        key = f"windvane:{up.secret}" if said == own else None
        assert done.stdout.strip() == f"{said} {key}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        missing("a Chromium (CHROMIUM names it)")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--disable-gpu", "--no-sandbox"])
        yield browser
        browser.close()


def test_a_person_opens_both_pages_with_one_link_and_nothing_comes_from_elsewhere(
    browser: Any, two: tuple[Up, Up], run: dict[str, Any]
) -> None:
    up, credentials = two[0], Credentials.of(two[0].folder.path / ".windvane")
    mlflow, prefect = up.address("mlflow"), up.address("prefect")
    context = browser.new_context()
    page, asked, refused = context.new_page(), list[Any](), list[str]()

    def keep(request: Any) -> None:  # Playwright takes no method of a list
        asked.append(request)

    page.on("request", keep)
    page.on("response", lambda answer: refused.append(answer.url) if answer.status in (401, 403) else None)
    page.goto(credentials.link(mlflow))
    assert page.url.startswith(mlflow)
    page.goto(f"{mlflow}/#/experiments")
    page.get_by_text(up.told["project"]).first.wait_for()
    page.goto(credentials.link(prefect))
    page.goto(f"{prefect}/v2/runs")
    page.get_by_text(run["name"]).first.wait_for()
    page.goto(f"{prefect}/v2/runs/flow-run/{run['id']}")
    page.get_by_text("Completed").first.wait_for()
    page.goto(f"{prefect.replace('127.0.0.1', 'localhost')}/?secret={credentials.secret}")
    page.get_by_text("Flow Runs").first.wait_for()
    assert refused == []
    hosts = {request.url.split("/")[2] for request in asked if request.url.startswith("http")}
    assert hosts <= {at.split("/")[2] for at in (mlflow, prefect, prefect.replace("127.0.0.1", "localhost"))}
    # It goes into one address of each link, and from there nowhere: no page's script sees it.
    assert {request.url for request in asked if credentials.secret in request.url} == {
        credentials.link(at) for at in (mlflow, prefect, prefect.replace("127.0.0.1", "localhost"))
    }
    assert not [request for request in asked if credentials.secret in str(request.headers)]
    context.close()


def test_another_projects_link_opens_nothing_here(browser: Any, two: tuple[Up, Up]) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(Credentials.of(two[1].folder.path / ".windvane").link(two[1].address("mlflow")))
    assert len(context.cookies(two[0].address("mlflow"))) == 1  # to a browser a port is no other host
    for name in ("mlflow", "prefect"):
        answer = context.request.get(two[0].address(name))
        assert (answer.status, "windvane secret" in answer.text()) == (401, True)
        assert context.request.get(two[1].address(name)).status == 200
    context.close()


def test_a_page_from_elsewhere_can_do_nothing_with_a_persons_cookie(browser: Any, two: tuple[Up, Up]) -> None:
    up = two[0]
    context = browser.new_context()
    page = context.new_page()
    page.goto(Credentials.of(up.folder.path / ".windvane").link(up.address("prefect")))
    # Another port of this computer is the same site to a browser: cookies go along.
    page.goto(up.address("service") + "/version")
    at = f"{up.address('prefect')}/api/deployments/filter"
    for mode in ("cors", "no-cors"):
        with suppress(Exception):
            page.evaluate(f"fetch('{at}', {{method: 'POST', mode: '{mode}', credentials: 'include', body: '{{}}'}})")
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status))
    with suppress(Exception):
        page.evaluate(
            f"fetch('{up.address('prefect')}/api/admin/version', {{mode: 'no-cors', credentials: 'include'}})"
        )
    until(lambda: statuses, 30, "the browser's request is answered")
    assert set(statuses) == {403}
    context.close()
