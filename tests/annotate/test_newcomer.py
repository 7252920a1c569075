"""The promise: two objects marked by clicks, masks, a mistake repaired and COCO exported, all in two minutes.

A person's time is counted as two seconds for each action, the program's as CPU seconds of the server: a machine that does other
things besides must not decide whether the promise holds. The full trial uses all cores and needs a quiet machine: there it is the
time on the clock.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from annotation import iou
from annotator_page import Driver, Server, chromium, composed

from vosformer.annotate.label_files import read_png
from vosformer.formats import read


class Trial(NamedTuple):
    """A clip, and the short side at which the model sees it; None: what the program does by itself, threads included."""

    size: tuple[int, int]
    frames: int
    short: int | None


SHORT, FULL = Trial((240, 426), 8, 240), Trial((480, 854), 24, None)
SECONDS_AN_ACTION = 2.0
PROMISE = 120.0


def masks_of(project: Path) -> list[np.ndarray]:
    return [read_png(path) for path in sorted((project / "masks").glob("*.png"))]


def scores(masks: list[np.ndarray], truth: list[np.ndarray], ids: dict[int, int]) -> np.ndarray:
    """J of each frame and object."""
    return np.array([[iou(m == mine, t == theirs) for mine, theirs in ids.items()] for m, t in zip(masks, truth, strict=True)])


def standing_alone(labels: np.ndarray) -> list[int]:
    """Objects that are whole in sight and touch no other one, the largest first: one click can tell what is meant."""
    edge = np.unique(np.concatenate([labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()]))
    found, areas = np.unique(labels[~np.isin(labels, [0, *edge])], return_counts=True)
    ring = np.ones((7, 7), np.uint8)
    alone = [
        i for i in found if not np.isin(labels[cv2.dilate((labels == i).astype(np.uint8), ring) > 0], [0, i], invert=True).any()
    ]
    return sorted(map(int, alone), key=lambda i: -areas[found == i][0])


def worst_of(now: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, str]:
    """What to click on, and how: what is missing, or what is too much, whichever is more."""
    missed, surplus = wanted & ~now, now & ~wanted
    return (missed, "left") if missed.sum() > surplus.sum() else (surplus, "right")


def clicked_until_right(page: Driver, project: Path, i: int, wanted: np.ndarray) -> int:
    """Click on an object; who sees a wrong mask clicks again, at most three times. Returns the clicks."""
    page.click_middle(wanted)
    for clicks in range(1, 4):
        now = read_png(project / "given" / "00000.png") == i
        if iou(now, wanted) > 0.6:
            return clicks
        page.click_middle(*worst_of(now, wanted))
    return 4


needs_time = pytest.mark.skipif("VOSFORMER_FULL_TRIAL" not in os.environ, reason="takes minutes: set VOSFORMER_FULL_TRIAL")


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("trial", [SHORT, pytest.param(FULL, marks=needs_time)], ids=["short", "full"])
def test_two_minutes(trial: Trial, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video, truth = composed(tmp_path, trial.size, trial.frames, seed=6)
    first, second = standing_alone(truth[0])[:2]
    ids = {1: first, 2: second}
    project = tmp_path / "p"
    actions = 1  # typing the command
    begun = time.perf_counter()
    server = Server(video, "-o", project, size=trial.short)
    with chromium() as context:
        try:
            page = Driver(context, server.url, trial.size)
            look = page.page
            assert "left click: on the object" in look.locator("#hint").inner_text()
            clicks = clicked_until_right(page, project, 1, truth[0] == first)
            look.get_by_title("New object (N)").click()
            look.wait_for_selector("#objects li >> nth=1")
            clicks += clicked_until_right(page, project, 2, truth[0] == second)
            actions += 1 + clicks
            clicked = read_png(project / "given" / "00000.png")
            after_clicks = [iou(clicked == mine, truth[0] == theirs) for mine, theirs in ids.items()]
            look.screenshot(path=tmp_path / "marked.png")

            look.get_by_text("Propagate", exact=True).click()
            look.wait_for_selector("#job", state="visible")
            look.wait_for_selector("#job", state="hidden", timeout=1_800_000)
            look.wait_for_selector("#doubts li")
            actions += 1
            before = scores(masks_of(project), truth, ids)

            # The mistake: where one sees it is worst; a click on what is missing, or beside the object on what is too much.
            n, which = np.unravel_index(int(before[1:].argmin()), before[1:].shape)
            frame, i = int(n) + 1, list(ids)[int(which)]
            page.frame(frame)
            look.locator(f"#objects li[data-id='{i}']").click()
            now = read_png(project / "masks" / f"{frame:05d}.png") == i
            wanted = truth[frame] == ids[i]
            page.click_middle(*worst_of(now, wanted))
            look.get_by_text("Repair", exact=True).click()
            look.wait_for_selector("#job", state="visible")
            look.wait_for_selector("#job", state="hidden", timeout=1_800_000)
            actions += 4
            after = scores(masks_of(project), truth, ids)
            look.wait_for_selector(f"#canvas[data-frame='{frame}']")  # a repair comes back to what was corrected
            look.screenshot(path=tmp_path / "repaired.png")
            for theme in ("light", "contrast"):
                page.press("Shift+H")
                assert look.locator("html").get_attribute("data-theme") == theme
            look.screenshot(path=tmp_path / "contrast.png")

            look.get_by_text("Export", exact=True).click()
            with look.expect_download() as download:
                look.locator("[data-format='coco']").click()
            download.value.save_as(tmp_path / "coco.json")
            actions += 2
            wall, cpu = time.perf_counter() - begun, server.cpu_seconds()
            assert not page.errors, page.errors
        finally:
            server.stop()
    exported = read(tmp_path / "coco.json")
    assert all((f.labels(*trial.size) == m).all() for f, m in zip(exported.frames, masks_of(project), strict=True))
    person = SECONDS_AN_ACTION * actions
    with capsys.disabled():
        print(
            f"\n{actions} actions: {person:.0f} s of a person, {cpu:.0f} CPU seconds of the server; {wall:.0f} s on the clock"
        )
        print(
            f"J of the masks after {clicks} clicks {np.round(after_clicks, 2)}, "
            f"of all {before.mean():.3f}, after the repair {after.mean():.3f}"
        )
        print(f"worst frame {frame}: {before[frame, int(which)]:.3f} -> {after[frame, int(which)]:.3f}; pictures in {tmp_path}")
    assert min(after_clicks) > 0.6
    assert after[frame, int(which)] > before[frame, int(which)]
    assert after.mean() > before.mean() - 0.005
    assert person + (cpu if trial.short else wall) < PROMISE
