"""The annotator as it is used: real Chromium, mouse and keyboard, a server that is killed, masks compared with exact ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from annotation import iou
from annotator_page import Driver, Server, chromium, composed

from vosformer.annotate.label_files import read_png
from vosformer.formats import read
from vosformer.io import open_source, read_masks

SIZE = (192, 342)


def masks_of(project: Path, frames: int) -> list[np.ndarray]:
    return [read_png(project / "masks" / f"{n:05d}.png") for n in range(frames)]


def largest(labels: np.ndarray, count: int) -> list[int]:
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    return [int(i) for i in ids[np.argsort(-areas)][:count]]


def test_a_video_from_the_first_mark_to_the_export(tmp_path: Path) -> None:
    frames = 6
    video, truth = composed(tmp_path, SIZE, frames)
    first, second = largest(truth[0], 2)
    project = tmp_path / "p"
    server = Server(video, "-o", project)
    with chromium() as context:
        try:
            page = Driver(context, server.url, SIZE)
            # Two objects, a box each.
            for i in (first, second):
                page.press("n", changes=True)
                page.box(truth[0] == i)
            marked = read_png(project / "given" / "00000.png")
            assert iou(marked == 1, truth[0] == first) > 0.7
            assert iou(marked == 2, truth[0] == second) > 0.6

            page.propagate("f")
            tracked = masks_of(project, frames)
            scores = [iou(tracked[n] == 1, truth[n] == first) for n in range(frames)]
            assert np.mean(scores) > 0.75, scores

            # A correction by brush, and its repair between given frames; undone, and done again.
            page.frame(frames - 1)
            page.press("1")
            page.press("d")
            _rows, _columns = np.nonzero(truth[0] == 0)
            spot = (float(SIZE[1] - 12), 12.0)
            page.drag(spot, (spot[0], 20.0))
            corrected = read_png(project / "given" / f"{frames - 1:05d}.png")
            assert corrected[15, int(spot[0])] == 1
            page.propagate("r")
            repaired = masks_of(project, frames)
            assert all((repaired[n] == tracked[n]).all() for n in (0,))
            assert repaired[frames - 1][15, int(spot[0])] == 1
            for _ in range(2):
                page.press("Control+z", changes=True)
            assert all((a == b).all() for a, b in zip(masks_of(project, frames), tracked, strict=True))
            for _ in range(2):
                page.press("Control+Shift+Z", changes=True)
            assert all((a == b).all() for a, b in zip(masks_of(project, frames), repaired, strict=True))
            assert not page.errors, page.errors

            # Killed in the middle of a propagation: nothing of what was there is lost.
            page.press("Home")
            page.begin("Shift+F")
            page.until(lambda: page.page.evaluate("document.getElementById('job-bar').value") > 0)
            server.kill()
            page.page.wait_for_selector("#messages .error")
            given = {path.name: path.read_bytes() for path in (project / "given").glob("*.png")}
            assert len(given) == 2
            assert list(read_masks(project / "given", open_source(video))) == [0, frames - 1]

            server = Server(project)  # the folder alone is enough
            page = Driver(context, server.url, SIZE)
            assert {path.name: path.read_bytes() for path in (project / "given").glob("*.png")} == given
            assert page.page.locator("#objects li").count() == 2
            page.press("Control+z", changes=True)  # what the killed propagation did
            assert all((a == b).all() for a, b in zip(masks_of(project, frames), repaired, strict=True))

            exported = read(page.export("coco", tmp_path / "coco.json"))
            for n, frame in enumerate(exported.frames):
                assert (frame.labels(*SIZE) == repaired[n]).all()
            jaccard = np.mean([iou(frame.labels(*SIZE) == 1, truth[n] == first) for n, frame in enumerate(exported.frames)])
            assert jaccard > 0.7
            assert not page.errors, page.errors
        finally:
            server.stop()
    assert json.loads((project / "project.json").read_text())["objects"][0]["name"] == "object 1"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_keyboard_alone(tmp_path: Path) -> None:
    """Everything from a box to the export without a pointer."""
    video, truth = composed(tmp_path, SIZE, 5)
    (i,) = largest(truth[0], 1)
    rows, columns = np.nonzero(truth[0] == i)
    project = tmp_path / "p"
    server = Server(video, "-o", project)
    with chromium() as context:
        try:
            page = Driver(context, server.url, SIZE)
            page.page.locator("#stage").focus()
            page.press("n", changes=True)
            page.press("x")

            def cursor_to(x: int, y: int, at: list[int]) -> None:
                for key, wanted, now in (("Right", x, at[0]), ("Down", y, at[1])):
                    forward, way = wanted > now, abs(wanted - now)
                    name = key if forward else {"Right": "Left", "Down": "Up"}[key]
                    for _ in range(way // 10):
                        page.press(f"Alt+Arrow{name}")
                    for _ in range(way % 10):
                        page.press(f"Alt+Shift+Arrow{name}")
                at[:] = [x, y]

            at = [SIZE[1] // 2, SIZE[0] // 2]
            cursor_to(int(columns.min()) - 4, int(rows.min()) - 4, at)
            page.press("Enter")
            cursor_to(int(columns.max()) + 4, int(rows.max()) + 4, at)
            page.press("Enter", changes=True)
            assert iou(read_png(project / "given" / "00000.png") == 1, truth[0] == i) > 0.8
            page.propagate("f")
            page.press("End")
            page.page.wait_for_selector("#canvas[data-frame='4']")
            page.press("o", changes=True)
            assert not read_png(project / "masks" / "00004.png").any()
            page.press("Control+z", changes=True)
            page.press("?")
            assert page.page.locator("dialog[open] kbd").count() > 60
            page.press("Escape")
            page.press("Control+e")
            with page.page.expect_download():
                page.page.locator("[data-format='coco']").focus()
                page.press("Enter")
            assert not page.errors, page.errors
        finally:
            server.stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_objects_come_and_go_and_two_windows_know_of_each_other(tmp_path: Path) -> None:
    video, truth = composed(tmp_path, SIZE, 6)
    first, second = largest(truth[0], 2)
    project = tmp_path / "p"
    server = Server(video, "-o", project)
    with chromium() as context:
        try:
            page = Driver(context, server.url, SIZE)
            page.press("n", changes=True)
            page.box(truth[0] == first)
            page.propagate("f")
            page.frame(3)
            page.press("n", changes=True)
            page.box(truth[3] == second)
            page.propagate("Shift+F")
            tracked = masks_of(project, 6)
            assert all((labels == 2).any() for labels in tracked), "an object added midway is followed both ways"
            assert iou(tracked[1] == 1, truth[1] == first) > 0.7
            other = Driver(context, server.url, SIZE)
            page.page.wait_for_selector("#messages .error:has-text('another window')")
            with page.change():
                other.press("Shift+Delete", changes=True)
            assert page.page.locator("#objects li").count() == 1
            assert not any((labels == 2).any() for labels in masks_of(project, 6))
            assert not [*page.errors, *other.errors]
        finally:
            server.stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_fingers_and_pen(tmp_path: Path) -> None:
    """A tap marks, two fingers zoom and pan without marking, a pen draws, and its other end erases."""
    video, truth = composed(tmp_path, SIZE, 3)
    (i,) = largest(truth[0], 1)
    project = tmp_path / "p"
    given = project / "given" / "00000.png"
    server = Server(video, "-o", project)
    with chromium(has_touch=True) as context:
        try:
            page = Driver(context, server.url, SIZE)
            rows, columns = np.nonzero(truth[0] == i)
            middle = np.argsort(np.hypot(rows - rows.mean(), columns - columns.mean()))[0]
            with page.change():
                page.page.touchscreen.tap(*page.at(columns[middle], rows[middle]))
            page.until(given.exists)
            tapped = read_png(given)
            assert (tapped == 1)[rows[middle], columns[middle]]

            devices = context.new_cdp_session(page.page)

            def touch(kind: str, *places: tuple[float, float]) -> None:
                points = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(places)]
                devices.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

            def shown() -> dict[str, float]:
                return page.page.evaluate("import('./js/view.js').then(({view: v}) => ({scale: v.scale, x: v.x, y: v.y}))")

            before, version, (x, y) = shown(), page.version, page.at(SIZE[1] / 2, SIZE[0] / 2)
            touch("touchStart", (x - 40, y))
            touch("touchStart", (x - 40, y), (x + 40, y))
            for step in range(1, 5):
                touch("touchMove", (x - 40 - 10 * step, y + 5 * step), (x + 40 + 10 * step, y + 5 * step))
            touch("touchEnd")
            after = shown()
            assert after["scale"] / before["scale"] == pytest.approx(2, rel=0.05)
            assert page.version == version, "two fingers mark nothing"
            # What was between the fingers is there still, 20 pixels lower.
            left, top = (page.page.locator("#canvas").bounding_box()[side] for side in ("x", "y"))
            for middle_, moved, name in ((x - left, 0, "x"), (y - top, 20, "y")):
                was = (middle_ - before[name]) / before["scale"]
                assert (middle_ + moved - after[name]) / after["scale"] == pytest.approx(was, abs=1.0)
            page.press("0")

            def pen(kind: str, at: tuple[float, float], button: str, buttons: int) -> None:
                x, y = page.at(*at)
                how = {"type": kind, "x": x, "y": y, "button": button, "buttons": buttons, "pointerType": "pen", "force": 0.5}
                devices.send("Input.dispatchMouseEvent", {**how, "clickCount": 1})

            page.press("d")
            spot = (float(SIZE[1] - 20), 14.0)
            for button, buttons, wanted in (("left", 1, 1), ("right", 2, 0)):
                with page.change():
                    pen("mousePressed", spot, button, buttons)
                    pen("mouseMoved", (spot[0], 24.0), button, buttons)
                    pen("mouseReleased", (spot[0], 24.0), button, 0)
                assert read_png(given)[18, int(spot[0])] == wanted
            assert not page.errors, page.errors
        finally:
            server.stop()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_windows_edit_at_once(tmp_path: Path) -> None:
    """Strokes from two windows, as fast as they come: both are told, none is lost, and all can be undone."""
    video, _ = composed(tmp_path, SIZE, 4)
    project = tmp_path / "p"
    server = Server(video, "-o", project)
    with chromium() as context:
        try:
            first, second = (Driver(context, server.url, SIZE) for _ in range(2))
            first.page.wait_for_selector("#messages .error:has-text('another window')")
            first.press("n", changes=True)
            second.page.wait_for_selector("#objects li")
            code = """async ([own, count]) => {
                const headers = {"content-type": "application/json"};
                for (let k = 0; k < count; k++) {
                    const body = {frame: own, object: 1, path: [[10 + 12 * k, 20]], radius: 4};
                    await fetch("api/stroke", {method: "POST", headers, body: JSON.stringify(body)});
                }
            }"""
            for own, window in enumerate((first, second)):
                window.page.evaluate(f"window.running = ({code})([{own}, 10])")
            for window in (first, second):
                window.page.evaluate("window.running")
            for n in (0, 1):
                labels = read_png(project / "given" / f"{n:05d}.png")
                assert all(labels[20, 10 + 12 * k] == 1 for k in range(10))
            first.until(lambda: first.version == second.version)
            for _ in range(20):
                first.press("Control+z", changes=True)
            assert not list((project / "given").glob("*.png"))
            assert first.page.get_by_title("Undo: new object").count() == 1
            assert not [*first.errors, *second.errors]
        finally:
            server.stop()
