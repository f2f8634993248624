"""Pictures of MLflow's pages of a real grid, taken in a real browser, so that the documentation stays true.

    python tests/benchmarks/screenshots.py --tracking-uri sqlite:///runs/real/mlflow.db --grid dhsd-testaments \\
        --out tests/benchmarks/results/screenshots

Starts an MLflow server of its own on a free port, opens the pages in Chromium by Playwright and writes one PNG
per page. Exits with an error when a page does not show what it is there for.
"""

from __future__ import annotations

import argparse
import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from mlflow import MlflowClient
from playwright.sync_api import Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
# Chromium asks several hosts of its own at every start; none of that belongs into a picture or a log.
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def server(uri: str) -> Iterator[str]:
    """Address of an MLflow server on ``uri`` for as long as the block lasts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--backend-store-uri",
        uri,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health") as answer:
                if answer.status == 200:
                    break
            if process.poll() is not None:
                raise SystemExit(f"mlflow server ended with {process.returncode}; is {uri} an MLflow database?")
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def picture(page: Page, sees: str, file: Path) -> None:
    """Wait until the text ``sees`` is on the page, and write the picture."""
    page.get_by_text(sees).first.wait_for(timeout=60_000)
    page.wait_for_timeout(2500)  # charts and artifacts arrive after the text
    page.screenshot(path=file)
    print(f"{file}: {page.url}")


def open_runs(page: Page, runs: str, grid: str) -> None:
    """The table of runs as somebody sees it who trains models: without the assistant, the grid's trials unfolded."""
    page.goto(runs)
    page.get_by_role("button", name="Close").click(timeout=60_000)
    page.get_by_text("Model training").first.click()
    name = page.locator(".ag-row a").get_by_text(grid, exact=True).first
    name.wait_for(timeout=60_000)
    box = name.bounding_box()
    assert box is not None
    # The plus sign before a name has no role and no label.
    page.mouse.click(box["x"] - 33, box["y"] + box["height"] / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument("--grid", required=True, help="name of the grid")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    with server(asked.tracking_uri) as address, sync_playwright() as playwright:
        client = MlflowClient(address)
        experiments = [e for e in client.search_experiments() if e.name != "Default"]
        runs = client.search_runs([e.experiment_id for e in experiments], "", max_results=1000)
        parent = next(r for r in runs if r.data.tags.get("htr_ray.grid") == asked.grid)
        experiment = parent.info.experiment_id
        mine = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
        done = [r for r in mine if r.info.status == "FINISHED"]
        best = min((r for r in done if "test_cer" in r.data.metrics), key=lambda r: r.data.metrics["val_cer"])
        pretraining = next((r for r in done if r.data.tags.get("stage") == "pretrain"), None)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        root = f"{address}/#/experiments/{experiment}"
        out = asked.out
        open_runs(page, f"{root}/runs", asked.grid)
        picture(page, best.info.run_name[:12], out / "runs.png")
        page.goto(f"{root}/runs?compareRunsMode=CHART")
        picture(page, "lines_per_second", out / "charts.png")
        pages = {
            "grid": (parent, "", asked.grid),
            "trial": (best, "", "Parent run"),
            "curves": (best, "/model-metrics", "lines_per_second"),
            "test-lines": (best, "/artifacts/test_lines.html", "confusions.tsv"),
        }
        if pretraining is not None:
            pages["pretext"] = (pretraining, "/artifacts/pretext_preview.png", "pretext_preview.png")
        for name, (run, tab, sees) in pages.items():
            page.goto(f"{root}/runs/{run.info.run_id}{tab}")
            picture(page, sees, out / f"{name}.png")
        for model in client.search_registered_models():
            version = model.aliases.get("champion") or next(iter(model.aliases.values()))
            page.goto(f"{address}/#/models/{model.name}/versions/{version}")
            picture(page, "Promote model", out / f"model-{model.name.removeprefix('htr-ray-')}.png")
        browser.close()


if __name__ == "__main__":
    main()
