"""Answers that come late, or in another order than they were asked for: the page shows what is so, and what a person types stays."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from annotation import clip
from annotator_page import Driver, chromium
from dummy_models import ColorModel

from vosformer import Session
from vosformer.annotate.project import Project
from vosformer.annotate.server import create_app
from vosformer.annotate.workspace import Workspace
from vosformer.io import open_source
from vosformer.web.listen import listen

FRAMES = 30


class Waiting(Session):
    """Tracks a frame each time that somebody lets it."""

    def __init__(self, gate: threading.Semaphore) -> None:
        super().__init__(ColorModel(), size=None, dtype="fp32")
        self._gate = gate

    def step(self, *args: Any, **options: Any) -> Any:
        assert self._gate.acquire(timeout=60)
        return super().step(*args, **options)


class Opened(NamedTuple):
    """A page in front of a server in this process."""

    page: Driver
    workspace: Workspace
    gate: threading.Semaphore


@pytest.fixture(scope="module")
def context() -> Iterator[Any]:
    with chromium() as made:
        yield made


@pytest.fixture
def opened(context: Any, tmp_path: Path) -> Iterator[Opened]:
    uvicorn = pytest.importorskip("uvicorn")
    images, _ = clip(frames=FRAMES)
    gate = threading.Semaphore(0)
    workspace = Workspace(Project(tmp_path / "p", open_source(images)), lambda: Waiting(gate))
    listener = listen("127.0.0.1", 0)
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    _, app, token = create_app(workspace, {host})
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=2))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    page = Driver(context, f"http://{host}/{token}/", images.shape[1:3])
    try:
        yield Opened(page, workspace, gate)
    finally:
        page.page.close()
        for _ in range(3 * FRAMES):
            gate.release()
        server.should_exit = True
        thread.join(30)
    assert not page.errors, page.errors


class Held:
    """The answer to the first request of a kind: the server has given it, and the page gets it when `release` is called."""

    def __init__(self, page: Any, pattern: str) -> None:
        self._page, self._pattern, self._answers = page, pattern, list[Any]()
        page.route(pattern, self._hold)

    def _hold(self, route: Any) -> None:
        if self._answers:
            route.continue_()
        else:
            self._answers.append((route, route.fetch()))

    def wait(self) -> None:
        while not self._answers:
            self._page.wait_for_timeout(20)

    def release(self) -> None:
        for route, answer in self._answers:
            route.fulfill(response=answer)
        self._page.unroute(self._pattern)


def shown(page: Driver) -> int:
    return int(page.page.evaluate("document.getElementById('canvas').dataset.frame"))


def test_a_number_that_is_being_typed_stays_when_lanes_come_late(opened: Opened) -> None:
    """The time line is drawn anew a moment after each change; that wrote the frame's number over what was typed in between."""
    page = opened.page
    lanes = Held(page.page, "**/api/lanes*")
    page.press("n", changes=True)
    lanes.wait()
    page.page.fill("#frame-number", "7")
    lanes.release()
    page.page.wait_for_selector(".lane canvas[data-object='1']")
    page.page.wait_for_timeout(200)
    page.page.press("#frame-number", "Enter")
    page.page.wait_for_selector("#canvas[data-frame='7']")
    # Enter goes back to the keys of the frame; what is given up, or is no number, changes nothing.
    page.press("ArrowRight")
    page.page.wait_for_selector("#canvas[data-frame='8']")
    for typed, key in (("3", "Escape"), ("", "Enter")):
        page.page.fill("#frame-number", typed)
        page.page.press("#frame-number", key)
        assert page.page.input_value("#frame-number") == "8"
    page.press("ArrowRight")
    page.page.wait_for_selector("#canvas[data-frame='9']")


def test_an_older_answer_does_not_undo_a_newer_one(opened: Opened) -> None:
    page = opened.page
    page.press("n", changes=True)
    state = Held(page.page, "**/api/state")
    with opened.workspace.edit() as editor:  # somebody else draws
        editor.stroke(0, 1, [(4, 4), (20, 9)], 3)
    state.wait()
    page.press("n", changes=True)
    version = page.version
    assert page.page.locator("#objects li").count() == 2
    state.release()
    page.page.wait_for_timeout(300)
    assert page.version == version == str(opened.workspace.project.version)
    assert page.page.locator("#objects li").count() == 2


def test_the_frame_that_is_shown_is_never_thrown_away(opened: Opened) -> None:
    """The page keeps some pictures; going back to an old one makes its neighbor come, which pushed out the one that was shown."""
    page = opened.page
    for _ in range(24):
        page.press("ArrowRight")
    page.page.wait_for_selector("#canvas[data-frame='24']")
    page.page.wait_for_timeout(300)  # its neighbor comes, too
    page.frame(2)
    page.page.wait_for_timeout(300)
    page.press("+")  # paints anew
    page.page.wait_for_timeout(100)
    assert not page.errors, page.errors


def follow_a_stroke(page: Driver) -> None:
    """Draw an object, and begin to follow it."""
    page.press("n", changes=True)
    page.press("d")
    page.drag((4, 4), (20, 9))
    page.begin("f")


def test_the_last_of_frames_that_come_together_is_shown(opened: Opened) -> None:
    """The page shows a frame every 150 ms; the newest one must not be left out because it came too early."""
    page, gate = opened.page, opened.gate
    follow_a_stroke(page)
    gate.release(3)  # all at once, and none after them
    page.until(lambda: opened.workspace.project.masked()[2])
    page.page.wait_for_selector("#canvas[data-frame='2']")
    page.press("Escape")
    gate.release()
    page.page.wait_for_selector("#job", state="hidden")


def test_who_goes_elsewhere_while_frames_are_followed_stays_there(opened: Opened) -> None:
    page, gate = opened.page, opened.gate
    follow_a_stroke(page)
    for _ in range(3):
        gate.release()
        page.page.wait_for_timeout(200)  # the page follows at most every 150 ms
    page.page.wait_for_selector("#canvas[data-frame='2']")
    page.frame(20)
    for _ in range(3):
        gate.release()
    page.until(lambda: opened.workspace.project.masked()[5])
    page.page.wait_for_timeout(300)
    assert shown(page) == 20
    page.press("Escape")
    gate.release()
    page.page.wait_for_selector("#job", state="hidden")
    assert shown(page) == 20


def test_a_frame_does_not_wait_for_the_film_strip(opened: Opened) -> None:
    """All pictures of the strip were asked for at once: they took every connection, and each sent the decoder somewhere else."""
    page, asked = opened.page, list[str]()

    def come() -> bool:
        code = "(pictures => pictures.length > 1 && pictures.every((i) => i.naturalHeight > 0))"
        return bool(page.page.evaluate(f"{code}([...document.querySelectorAll('#film img')])"))

    page.until(come)
    film = Held(page.page, "**/api/film/*")
    page.page.on("request", lambda request: asked.append(request.url) if "/film/" in request.url else None)
    page.page.reload()
    film.wait()
    page.page.wait_for_selector("#canvas[data-frame='0']")
    page.press("ArrowRight")
    page.page.wait_for_selector("#canvas[data-frame='1']")
    assert len(asked) == 1
    film.release()
    page.until(come)
    assert len(asked) == page.page.locator("#film img").count()
