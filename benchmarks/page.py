"""How long a person waits in front of the page: click to mask, key to frame, and how many frames a second are followed.

    python benchmarks/page.py clip.mp4 --threads 2

Real Chromium (the system's, with playwright) and the program with its packaged weights. Times are from the event in the page
(button released, key pressed) to the canvas that shows the answer, on the clock: they mean something only on a machine with
nothing else to do. CPU seconds of the server are printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

# Notes when an event came, and when the canvas showed what it led to.
WATCH = """() => {
    window.noted = {};
    const canvas = document.getElementById("canvas");
    const note = (event) => { window.noted = { begun: performance.now() }; };
    for (const kind of ["keydown", "pointerup"]) addEventListener(kind, note, true);
    new MutationObserver(() => requestAnimationFrame(() => { window.noted.shown = performance.now(); }))
        .observe(canvas, { attributes: true, attributeFilter: ["data-frame", "data-version"] });
}"""


def start(video: str, folder: Path, threads: int, model: str) -> tuple[subprocess.Popen[str], str]:
    """The program, and its address."""
    code = "import sys; from vosformer.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["annotate", video, "-o", str(folder), "--no-browser", "--threads", str(threads), "--model", model]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words], stderr=subprocess.PIPE, text=True, env={**os.environ, "COLUMNS": "300"}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"http://\S+/", line):
            return process, match.group()
    raise SystemExit("the annotator did not start")


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """What the server has computed so far (Linux)."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def answer(page: Page, act: Any, shown: str) -> float:
    """Seconds from the event that `act` makes to the canvas that shows `shown`, a selector."""
    act()
    page.wait_for_selector(shown, timeout=120_000)
    while not page.evaluate("window.noted.shown > window.noted.begun"):
        page.wait_for_timeout(5)
    noted = page.evaluate("window.noted")
    return float(noted["shown"] - noted["begun"]) / 1000


def measure(page: Page, process: subprocess.Popen[str], project: Path, clicks: int, follow: int) -> dict[str, Any]:
    """All numbers."""
    frames = int(page.evaluate("document.getElementById('frame-number').max"))
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    found: dict[str, Any] = {}

    def note(name: str, values: list[float], cpu: float) -> None:
        found[name] = {"median": statistics.median(values), "most": max(values), "CPU": cpu / len(values), "count": len(values)}

    for name, key, first in (("the next frame", "ArrowRight", 1), ("ten frames on", "Shift+ArrowRight", 10)):
        begun, values, at = cpu_seconds(process), [], 0
        for _ in range(min(12, frames // first)):
            at += first
            values.append(answer(page, lambda key=key: page.keyboard.press(key), f"#canvas[data-frame='{at}']"))  # type: ignore[misc]
        if values:
            note(f"key to {name}", values, cpu_seconds(process) - begun)
        page.keyboard.press("Home")
        page.wait_for_selector("#canvas[data-frame='0']")
    page.keyboard.press("n")
    page.wait_for_selector("#objects li")
    page.wait_for_selector("body:not([data-busy=yes])")
    page.wait_for_timeout(500)
    begun, values = cpu_seconds(process), []
    for k in range(clicks):
        x, y = box["x"] + box["width"] * (0.4 + 0.04 * k), box["y"] + box["height"] * (0.5 - 0.03 * k)
        version = page.evaluate("document.getElementById('canvas').dataset.version")
        values.append(
            answer(page, lambda x=x, y=y: page.mouse.click(x, y), f"#canvas:not([data-version='{version}'])")  # type: ignore[misc]
        )
        if k == 0:
            note("the first click to its mask", values, cpu_seconds(process) - begun)
            begun, values = cpu_seconds(process), []
    note("a later click to its mask", values, cpu_seconds(process) - begun)

    masks = project / "masks"
    page.keyboard.press("f")
    times: dict[int, tuple[float, float]] = {}
    end = min(follow, frames)
    while end not in times:
        count = len(list(masks.glob("*.png"))) - 1
        times.setdefault(count, (time.perf_counter(), cpu_seconds(process)))
        page.wait_for_timeout(20)
    page.keyboard.press("Escape")
    page.wait_for_selector("#job", state="hidden")
    first = min(count for count in times if count >= 2)
    seconds, cpu = (b - a for a, b in zip(times[first], times[end], strict=True))
    found["followed"] = {"frames": end - first, "frames a second": (end - first) / seconds, "CPU": cpu / (end - first)}
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video")
    parser.add_argument("--clicks", type=int, default=5)
    parser.add_argument("--follow", type=int, default=12, help="frames")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="default")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    program = next(p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        project = Path(folder) / "project"
        process, address = start(args.video, project, args.threads, args.model)
        try:
            browser = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu", "--no-proxy-server"]
            )
            page = browser.new_page(viewport={"width": 1600, "height": 1000})
            page.goto(address)
            page.wait_for_selector("#canvas[data-frame='0']")
            page.evaluate(WATCH)
            found = measure(page, process, project, args.clicks, args.follow)
            browser.close()
        finally:
            process.terminate()
            process.wait(30)
    for name, values in found.items():
        print(f"{name:28}", ", ".join(f"{key} {value:.3g}" for key, value in values.items()))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
