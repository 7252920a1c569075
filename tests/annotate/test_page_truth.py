"""Identities and presence on the page, against exact masks: what was spoiled on purpose is found, mended, and right."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from annotation import iou
from annotator_page import Driver, Server, chromium, composed

from vosformer.annotate.label_files import labels_png, read_png

SIZE, FRAMES = (192, 342), 10

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def masks_of(project: Path) -> list[np.ndarray]:
    return [read_png(project / "masks" / f"{n:05d}.png") for n in range(FRAMES)]


def two_objects(truth: list[np.ndarray]) -> list[np.ndarray]:
    """The two largest objects as 1 and 2."""
    ids, areas = np.unique(truth[0][truth[0] > 0], return_counts=True)
    first, second = ids[np.argsort(-areas)][:2]
    return [np.where(t == first, 1, np.where(t == second, 2, 0)).astype(np.int32) for t in truth]


def write_masks(folder: Path, masks: dict[int, np.ndarray]) -> Path:
    folder.mkdir()
    for n, labels in masks.items():
        (folder / f"{n:05d}.png").write_bytes(labels_png(labels))
    return folder


def reasons(page: Driver) -> dict[int, str]:
    """Frame -> why it is doubtful, as the list at the left says."""
    page.press("v")
    page.page.wait_for_selector("#doubts li")
    page.page.wait_for_timeout(300)
    rows = page.page.locator("#doubts li button")
    return {int(row.locator(".n").inner_text()): row.locator(".why").inner_text() for row in rows.all()}


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> bool:
    return all((a == b).all() for a, b in zip(found, wanted, strict=True))


def test_identities_and_presence(tmp_path: Path) -> None:
    """Swapped, split, eaten and absent objects: imported masks that are wrong, mended by the page's own gestures."""
    video, all_truth = composed(tmp_path, SIZE, FRAMES)
    truth = two_objects(all_truth)
    swapped = [np.choose(t, [0, 2, 1]) if n >= 5 else t for n, t in enumerate(truth)]
    project = tmp_path / "p"
    server = Server(video, "-o", project, "--masks", write_masks(tmp_path / "swapped", dict(enumerate(swapped))))
    with chromium() as context:
        try:
            page = Driver(context, server.url, SIZE)
            found = reasons(page)
            assert 5 in found, found
            assert "jumps" in found[5]
            page.press("Home")
            page.press("t")  # the next doubtful frame is where they were mistaken for each other
            page.page.wait_for_selector("#canvas[data-frame='5']")
            page.press("1")
            page.press("s")
            with page.change():
                page.page.locator("dialog button", has_text="object 2").click()
            assert same(masks_of(project), truth)

            # A part of object 1 goes under another name: merged, it is whole.
            page.press("n", changes=True)
            columns = np.nonzero((truth[0] == 1).any(0))[0]
            left = int(np.median(columns))
            for n in (0, 1):
                page.frame(n)
                page.press("p")
                for x, y in ((0, 0), (left, 0), (left, SIZE[0] - 1), (0, SIZE[0] - 1)):
                    page.page.mouse.click(*page.at(x, y))
                page.press("Enter", changes=True)
            part = masks_of(project)
            assert (part[0] == 3).any()
            page.press("1")
            page.press("m")
            with page.change():
                page.page.locator("dialog button", has_text="object 3").click()
            merged = masks_of(project)
            assert not any((m == 3).any() for m in merged)
            assert ((merged[0] == 1) | (merged[0] == 2) | ~np.isin(truth[0], (1, 2))).all()
            while page.page.get_by_title("Undo: swap", exact=False).count() == 0:
                page.press("Control+z", changes=True)
            assert same(masks_of(project), truth)

            # Gone from frame 3 on, there again from 6 on: its masks on 3 to 5 go, the other object's stay.
            page.frame(3)
            page.press("1")
            page.press("Shift+O", changes=True)
            page.frame(6)
            page.press("Shift+I", changes=True)
            gone = masks_of(project)
            assert all(((g == 1) == ((t == 1) & (n < 3))).all() for n, (g, t) in enumerate(zip(gone, truth, strict=True)))
            assert all(((g == 2) == (t == 2)).all() for g, t in zip(gone, truth, strict=True))
            page.press("a")
            page.click_middle(truth[6] == 1)
            page.propagate("Shift+F")
            back = masks_of(project)
            assert not any((back[n] == 1).any() for n in (3, 4, 5)), "absent is absent, whatever is tracked"
            assert np.mean([iou(back[n] == 1, truth[n] == 1) for n in (6, 7, 8)]) > 0.6
            assert not page.errors, page.errors
        finally:
            server.stop()


def test_given_frames_are_blended_and_contradictions_are_seen(tmp_path: Path) -> None:
    """Between two given frames both passes count by distance; where they cannot agree, it says so."""
    video, all_truth = composed(tmp_path, SIZE, FRAMES)
    truth = two_objects(all_truth)
    last = FRAMES - 1
    given = write_masks(tmp_path / "given", {0: truth[0], last: truth[last]})
    project = tmp_path / "p"
    server = Server(video, "-o", project, "--masks", given, "--given")
    with chromium() as context:
        try:
            page = Driver(context, server.url, SIZE)
            page.press("Home")
            # Forward alone, with the last frame not yet given: what one pass knows.
            page.frame(last)
            page.press("Control+Delete", changes=True)
            page.press("Home")
            page.propagate("f")
            forward = masks_of(project)
            page.press("Control+z", changes=True)
            page.press("Control+z", changes=True)
            page.propagate("Shift+F")
            both = masks_of(project)
            assert (both[0] == truth[0]).all()
            assert (both[last] == truth[last]).all()

            def mean(masks: list[np.ndarray], frames: range) -> float:
                return float(np.mean([iou(masks[n] == i, truth[n] == i) for n in frames for i in (1, 2)]))

            late = range(FRAMES // 2, last)
            assert mean(both, late) >= mean(forward, late) - 0.01
            assert mean(both, range(1, last)) > 0.6

            # The last frame says the opposite: the passes disagree in the middle, and both say who is who near their own frame.
            page.frame(last)
            page.press("1")
            page.press("s")
            with page.change():
                page.page.locator("dialog button", has_text="object 2").click()
            page.press("Home")
            page.propagate("Shift+F")
            torn = masks_of(project)
            assert iou(torn[1] == 1, truth[1] == 1) > iou(torn[1] == 1, truth[1] == 2)
            assert iou(torn[last - 1] == 1, truth[last - 1] == 2) > iou(torn[last - 1] == 1, truth[last - 1] == 1)
            found = reasons(page)
            assert any("forward and backward disagree" in why for why in found.values()), found
            assert not page.errors, page.errors
        finally:
            server.stop()


def test_an_object_that_eats_another_is_doubtful(tmp_path: Path) -> None:
    video, all_truth = composed(tmp_path, SIZE, FRAMES)
    one = [labels == 1 for labels in two_objects(all_truth)]
    # Object 2 is the lower half of object 1's true mask; on frame 5 it takes a good part of the upper half.
    spoiled = []
    for n, mask in enumerate(one):
        rows = np.nonzero(mask.any(1))[0]
        cut = rows[0] + (rows[-1] - rows[0]) * (1 if n == 5 else 2) // 4
        lower = np.arange(SIZE[0])[:, None] >= cut
        spoiled.append(np.where(mask, np.where(lower, 2, 1), 0).astype(np.int32))
    masks = write_masks(tmp_path / "masks", dict(enumerate(spoiled)))
    with zipfile.ZipFile(tmp_path / "masks.zip", "w") as file:
        for path in masks.iterdir():
            file.write(path, path.name)
    server = Server(video, "-o", tmp_path / "p")
    with chromium() as context:
        try:
            page = Driver(context, server.url, SIZE)
            page.press("Control+i")
            page.page.set_input_files("dialog input[type=file]", tmp_path / "masks.zip")
            page.page.uncheck("dialog input[type=checkbox]")
            with page.change():
                page.page.locator("dialog button.main").click()
            found = reasons(page)
            near = " ".join(why for n, why in found.items() if n in (5, 6))
            assert "another object takes its pixels" in near, found
            assert not page.errors, page.errors
        finally:
            server.stop()
