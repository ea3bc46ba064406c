"""Takes the pictures in docs/images again, from the newest lap of a project.

Needs `pip install playwright` beside Windvane, a Chromium (yours with --browser, else the one that
`playwright install chromium` fetched) and a lap that both services know: in two terminals,

    windvane up
    windvane train
    python examples/screenshots.py . http://127.0.0.1:5000 http://127.0.0.1:4200 docs/images --browser /usr/bin/chromium

Look at every picture before you commit it.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import yaml
from playwright.sync_api import APIRequestContext, Page, sync_playwright

# No calls to the browser's maker; Playwright itself leaves out the sandbox, which the superuser's Chromium refuses.
FLAGS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
# MLflow opens in the mode for language models, with a chat beside every page: neither belongs in the picture.
QUIET = """
localStorage.setItem('mlflow.workflowType_v1', '"machine_learning"');
localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true');
localStorage.setItem('mlflow.assistant.panelOpen_v1', 'false');
"""
# The chat's button, and the line that says where this computer keeps a file.
HIDE = "them => them.forEach(it => (it.closest('button') ?? it.parentElement).style.visibility = 'hidden')"


def answer(http: APIRequestContext, url: str, body: dict[str, Any] | None = None) -> Any:
    """What a service says in JSON."""
    reply = http.post(url, data=body) if body is not None else http.get(url)
    if not reply.ok:
        sys.exit(f"{url}: {reply.status} {reply.text()[:300]}")
    return reply.json()


def newest_lap(http: APIRequestContext, mlflow: str, project: str) -> tuple[str, str, str, list[str]]:
    """The experiment, the newest lap's parent run, the lap's name and its candidates' runs, simplest first."""
    api = f"{mlflow}/api/2.0/mlflow"
    found = answer(http, f"{api}/experiments/get-by-name?experiment_name={quote(project)}")
    experiment = str(found["experiment"]["experiment_id"])
    body = {"experiment_ids": [experiment], "order_by": ["attributes.start_time DESC"], "max_results": 1000}
    runs = answer(http, f"{api}/runs/search", body).get("runs", [])
    tags = {run["info"]["run_id"]: {tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs}
    laps = [run for run, said in tags.items() if "mlflow.parentRunId" not in said and "windvane.lap" in said]
    if not laps:
        sys.exit(f"no lap in the experiment {project}: run `windvane train` first")
    children = [run for run, said in tags.items() if said.get("mlflow.parentRunId") == laps[0]]
    return experiment, laps[0], tags[laps[0]]["windvane.lap"], children[::-1]


def shoot(page: Page, url: str, file: Path, wait: str, box: tuple[int, int], press: tuple[str, ...] = ()) -> None:
    """Open a page, wait for a text that it must show, press what is to be pressed, and keep it from `box` (left, height)."""
    left, height = box
    page.goto("about:blank")
    page.set_viewport_size({"width": 1440, "height": max(height, 900)})
    page.goto(url)
    page.get_by_text(wait).first.wait_for(timeout=60_000)
    page.wait_for_timeout(3000)  # charts draw, and notices that announce themselves fade
    for name in press:
        page.get_by_text(name, exact=True).first.click()
    page.get_by_text(re.compile("^(MLflow Assistant|Path: file:)")).evaluate_all(HIDE)
    page.mouse.move(0, 0)
    page.wait_for_timeout(1000)
    page.screenshot(path=file, clip={"x": left, "y": 0, "width": 1440 - left, "height": height})
    print(file, file.stat().st_size, "bytes")


def watched(page: Page, http: APIRequestContext, runs: str, prefect: str, out: Path) -> None:
    """What the watch leaves, where `windvane up` has retrained: the automation, the lap that it began, both in the list of runs."""
    made = answer(http, f"{prefect}/api/flow_runs/filter", {"sort": "START_TIME_DESC"})
    begun = [run for run in made if (run.get("created_by") or {}).get("type") == "AUTOMATION"]
    if begun:
        (automation,) = answer(http, f"{prefect}/api/automations/filter", {})
        at = f"{prefect}/v2/automations/automation/{automation['id']}"
        shoot(page, at, out / "prefect-automation.png", "Run deployment", (255, 300))
        shoot(page, f"{prefect}/v2/runs/flow-run/{begun[0]['id']}", out / "prefect-watch.png", "Task Runs", (255, 512))
        shoot(page, runs, out / "mlflow-watch.png", "watch: ", (198, 390))


def main() -> None:
    """Find the newest lap and take its pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("project", type=Path, help="the folder that holds params.yaml")
    parser.add_argument("mlflow", help="where MLflow answers, such as http://127.0.0.1:5000")
    parser.add_argument("prefect", help="where Prefect answers, such as http://127.0.0.1:4200")
    parser.add_argument("out", type=Path, help="the folder for the pictures, which exists")
    parser.add_argument("--browser", help="a Chromium on this computer")
    told = parser.parse_args()
    mlflow, prefect, out = told.mlflow.rstrip("/"), told.prefect.rstrip("/"), told.out
    name = yaml.safe_load((told.project / "params.yaml").read_text(encoding="utf-8"))["project"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=told.browser, args=FLAGS)
        context = browser.new_context(color_scheme="light", timezone_id="UTC", locale="en-GB")
        context.add_init_script(QUIET)
        page, http = context.new_page(), context.request
        secret = (told.project / ".windvane" / "secret").read_text(encoding="ascii")
        for address in (mlflow, prefect):
            page.goto(f"{address}/?secret={secret}")  # the browser keeps a cookie, also for `http`

        experiment, parent, lap, children = newest_lap(http, mlflow, name)
        runs = f"runs={quote(json.dumps(children))}&experiments={quote(json.dumps([experiment]))}"
        closed = ("Visualizations", "Run details")
        shoot(
            page, f"{mlflow}/#/compare-runs?{runs}", out / "mlflow-compare.png", "validation_mae", (198, 1250), closed
        )
        run = f"{mlflow}/#/experiments/{experiment}/runs/{parent}"
        shoot(page, run, out / "mlflow-run.png", "Child runs", (198, 900), ("Show more",))
        shoot(page, f"{run}/artifacts/evaluation/ladder.png", out / "mlflow-artifacts.png", "ladder.png", (198, 680))
        shoot(page, f"{mlflow}/#/models/{quote(name)}", out / "mlflow-model.png", "champion", (198, 450))

        wanted = {"flow_runs": {"tags": {"all_": [f"lap-{lap}"]}}, "sort": "START_TIME_DESC"}
        flows = answer(http, f"{prefect}/api/flow_runs/filter", wanted)
        if not flows:
            sys.exit(f"{prefect} does not know the lap {lap}: was PREFECT_API_URL set when it ran?")
        shoot(page, f"{prefect}/v2/runs/flow-run/{flows[0]['id']}", out / "prefect-lap.png", "Task Runs", (247, 512))
        watched(page, http, f"{mlflow}/#/experiments/{experiment}/runs", prefect, out)
        for plot in ("ladder.png", "fit.png"):
            (out / plot).write_bytes(http.get(f"{mlflow}/get-artifact?path=evaluation/{plot}&run_uuid={parent}").body())
        browser.close()


if __name__ == "__main__":
    main()
