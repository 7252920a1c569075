"""The annotator's server: one project, on this machine, for whoever has the token in the address."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException, Response, WebSocket, WebSocketDisconnect
from fastapi import Request as HttpRequest
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from vosformer.annotate import requests as ask
from vosformer.annotate.editor import Editor
from vosformer.annotate.exchange import export, export_formats, import_masks
from vosformer.annotate.pictures import frame_jpeg, labels_as_rgb_png
from vosformer.annotate.propagation import plan_propagation, plan_repair
from vosformer.annotate.workspace import Event, Workspace
from vosformer.errors import InputError, VOSError
from vosformer.io.files import make_folder, remove
from vosformer.io.random_access import RandomAccess
from vosformer.web.guard import Guard, GuardRules

PAGE = Path(__file__).parent / "page"
_GESTURE_BYTES = 4 << 20
_UPLOAD_BYTES = 2 << 30
_WAITING_EVENTS = 500  # for a page that does not read them; it then asks for the whole state


class Clients:
    """The pages that are connected, each with a bounded queue of events."""

    def __init__(self) -> None:
        self._queues: dict[asyncio.Queue[Event], asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()

    def join(self) -> asyncio.Queue[Event]:
        """Add a page; all hear how many there are now."""
        queue: asyncio.Queue[Event] = asyncio.Queue(_WAITING_EVENTS)
        with self._lock:
            self._queues[queue] = asyncio.get_running_loop()
        self.tell({"event": "clients", "count": len(self._queues)})
        return queue

    def leave(self, queue: asyncio.Queue[Event]) -> None:
        """Forget a page that is gone, and let the others know."""
        with self._lock:
            self._queues.pop(queue, None)
        self.tell({"event": "clients", "count": len(self._queues)})

    def tell(self, event: Event) -> None:
        """Send an event to all, from any thread."""
        with self._lock:
            queues = list(self._queues.items())
        for queue, loop in queues:
            with suppress(RuntimeError):  # the loop was closed in between
                loop.call_soon_threadsafe(_put, queue, event)


def _put(queue: asyncio.Queue[Event], event: Event) -> None:
    if queue.full():
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait({"event": "changed", "version": -1})
    queue.put_nowait(event)


def create_app(workspace: Workspace, hosts: set[str], token: str | None = None) -> tuple[FastAPI, Guard, str]:
    """Yield the application, guarded, and its token.

    Args:
        workspace: that is served; it is closed with the application.
        hosts: values of the `Host` header that are this server, e.g. "127.0.0.1:8123".
        token: None makes a random one.
    """
    token = token or secrets.token_urlsafe(24)
    clients = Clients()
    workspace.listeners.append(clients.tell)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(workspace.close)

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)

    @app.exception_handler(VOSError)
    async def refused(request: HttpRequest, error: VOSError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    for router in (_pictures(workspace), _gestures(workspace), _objects(workspace), _runs(workspace), _exchange(workspace)):
        app.include_router(router, prefix=f"/{token}/api")
    app.include_router(_events(clients), prefix=f"/{token}/api")
    app.add_api_route(f"/{token}", lambda: RedirectResponse(f"/{token}/"), methods=["GET"])
    app.mount(f"/{token}", StaticFiles(directory=PAGE, html=True))
    rules = GuardRules(hosts, lambda path: _UPLOAD_BYTES if path.endswith("/api/import") else _GESTURE_BYTES)
    return app, Guard(app, rules), token


def _pictures(workspace: Workspace) -> APIRouter:
    """Frames, masks, and what the page knows besides."""
    router, project = APIRouter(), workspace.project

    def picture_of(frames: RandomAccess, frame: int, height: int | None) -> Response:
        data = frame_jpeg(frames.read(frame), project.size, height)
        return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})

    @router.get("/state")
    def state() -> dict[str, Any]:
        return workspace.state()

    @router.get("/frames/{frame}.jpg")
    def frame_picture(frame: int, h: int | None = None) -> Response:
        return picture_of(workspace.frames, frame, h)

    @router.get("/film/{frame}.jpg")
    def film_picture(frame: int, h: int = 54) -> Response:
        return picture_of(workspace.film, frame, h)

    @router.get("/masks/{frame}.png")
    def mask_picture(frame: int, h: int | None = None) -> Response:
        if not 0 <= frame < project.frames:
            raise InputError(f"there is no frame {frame}; there are {project.frames}, from 0 on")
        labels = project.labels(frame)
        scores = {str(i): round(row.score, 3) for i, row in project.measures.at(frame).items()}
        headers = {"cache-control": "no-store", "x-scores": json.dumps(scores)}
        return Response(labels_as_rgb_png(labels, h), media_type="image/png", headers=headers)

    @router.get("/lanes")
    def lanes(start: int = 0, stop: int = 1 << 30, bins: int = 600) -> dict[str, Any]:
        return workspace.lanes(start, stop, max(1, min(bins, 4000)))

    @router.get("/review")
    def review(most: int = 50) -> list[dict[str, Any]]:
        return workspace.review(max(1, min(most, 1000)))

    @router.get("/suggest")
    def suggest(k: int = 5) -> list[int]:
        return workspace.suggest(max(1, min(k, 100)))

    return router


def _gestures(workspace: Workspace) -> APIRouter:
    """Edits of the masks of one frame."""
    router = APIRouter()

    def done(gesture: Callable[[Editor], Any]) -> dict[str, Any]:
        with workspace.edit() as editor:
            result = gesture(editor)
        return {**workspace.state(), "result": result if isinstance(result, int) else None}

    @router.post("/add_points")
    def add_points(r: ask.AddPoints) -> dict[str, Any]:
        return done(lambda e: e.click(r.frame, r.object, r.points, r.labels, r.box))

    @router.post("/stroke")
    def stroke(r: ask.Stroke) -> dict[str, Any]:
        return done(lambda e: e.stroke(r.frame, r.object, r.path, r.radius, r.erase))

    @router.post("/polygon")
    def polygon(r: ask.Polygon) -> dict[str, Any]:
        return done(lambda e: e.polygon(r.frame, r.object, r.points, r.mode))

    @router.post("/fill")
    def fill(r: ask.Fill) -> dict[str, Any]:
        return done(lambda e: e.fill(r.frame, r.object, r.x, r.y, r.tolerance))

    @router.post("/move")
    def move(r: ask.Move) -> dict[str, Any]:
        return done(lambda e: e.move(r.frame, r.object, r.dx, r.dy))

    @router.post("/copy")
    def copy(r: ask.OnFrame) -> dict[str, Any]:
        return done(lambda e: e.copy(r.frame, r.object))

    @router.post("/absent")
    def absent(r: ask.OnFrame) -> dict[str, Any]:
        return done(lambda e: e.absent(r.frame, r.object))

    @router.post("/clear_points_in_frame")
    def clear(r: ask.Clear) -> dict[str, Any]:
        return done(lambda e: e.clear(r.frame, r.object))

    @router.post("/scissors")
    def scissors(r: ask.Scissors) -> list[tuple[int, int]]:
        return workspace.editor.scissors(r.frame, r.start, r.end)

    @router.post("/undo")
    def undo() -> dict[str, Any]:
        return {"undone": workspace.undo(), **workspace.state()}

    @router.post("/redo")
    def redo() -> dict[str, Any]:
        return {"redone": workspace.redo(), **workspace.state()}

    return router


def _objects(workspace: Workspace) -> APIRouter:
    """Objects, and edits of them over many frames."""
    router = APIRouter()

    def on_progress(done: int, total: int) -> None:
        if done % 50 == 0:
            workspace.tell({"event": "progress", "what": "changing masks", "done": done, "total": total, "frame": None})

    @router.post("/add_object")
    def add(r: ask.AddObject) -> dict[str, Any]:
        with workspace.edit() as editor:
            made = editor.add_object(r.name, r.category)
        return {**workspace.state(), "result": made.id}

    @router.post("/change_object")
    def change(r: ask.ChangeObject) -> dict[str, Any]:
        changes = r.model_dump(exclude_none=True)
        # Names, colors and visibility touch no mask: a propagation goes on.
        workspace.editor.change_object(changes.pop("object"), **changes)
        workspace.tell({"event": "changed", "version": workspace.project.version})
        return workspace.state()

    def done(gesture: Callable[[Editor], None]) -> dict[str, Any]:
        with workspace.edit() as editor:
            gesture(editor)
        return workspace.state()

    @router.post("/remove_object")
    def remove_object(r: ask.OneObject) -> dict[str, Any]:
        return done(lambda e: e.remove_object(r.object, on_progress))

    @router.post("/merge")
    def merge(r: ask.Merge) -> dict[str, Any]:
        return done(lambda e: e.merge(r.kept, r.gone, on_progress))

    @router.post("/swap")
    def swap(r: ask.Swap) -> dict[str, Any]:
        return done(lambda e: e.swap(r.one, r.other, r.frame, on_progress))

    @router.post("/absent_from")
    def absent_from(r: ask.OnFrame) -> dict[str, Any]:
        return done(lambda e: e.absent_from(r.frame, r.object, on_progress))

    @router.post("/here_again")
    def here_again(r: ask.OnFrame) -> dict[str, Any]:
        return done(lambda e: e.here_again(r.frame, r.object))

    return router


def _runs(workspace: Workspace) -> APIRouter:
    """Propagation in the background."""
    router = APIRouter()

    @router.post("/propagate")
    def propagate(r: ask.Propagate) -> dict[str, Any]:
        workspace.cancel()
        plan = plan_propagation(workspace.project, r.direction, r.frame, r.start, r.stop)
        workspace.propagate(plan, f"propagation {r.direction} from frame {r.frame}")
        return workspace.state()

    @router.post("/repair")
    def repair(r: ask.OneFrame) -> dict[str, Any]:
        workspace.cancel()
        workspace.propagate(plan_repair(workspace.project, r.frame), f"repair around frame {r.frame}")
        return workspace.state()

    @router.post("/cancel_propagate")
    def cancel() -> dict[str, Any]:
        workspace.cancel()
        return workspace.state()

    return router


def _exchange(workspace: Workspace) -> APIRouter:
    """Add the routes of exports and imports."""
    router, project = APIRouter(), workspace.project

    @router.post("/export")
    def export_masks(r: ask.Export) -> FileResponse:
        def on_progress(done: int, total: int) -> None:
            if done % 50 == 0:
                workspace.tell({"event": "progress", "what": f"export {r.format}", "done": done, "total": total, "frame": None})

        path, notes = export(project, r.format, on_progress)
        workspace.tell({"event": "done", "what": f"export {r.format}", "stopped": False, "error": None, "notes": list(notes)})
        name = f"{Path(project.source.name).stem}-{path.name}"
        return FileResponse(path, filename=name, headers={"cache-control": "no-store"})

    @router.get("/formats")
    def formats() -> dict[str, str]:
        return export_formats()

    @router.post("/import")
    async def upload(request: HttpRequest, name: str, frame: int = 0, given: bool = True) -> dict[str, Any]:
        # Only the kind of the file is taken from its name; where it lies is decided here.
        suffix = Path(name).suffix.lower()
        if not re.fullmatch(r"\.[a-z0-9]{1,5}", suffix):
            raise HTTPException(400, f"a file named {name[:80]!r}: expected masks, .png, .npy or .zip")
        folder = make_folder(project.folder / ".history" / "uploads" / secrets.token_hex(8))
        try:
            path = folder / f"upload{suffix}"
            with path.open("wb") as file:
                async for piece in request.stream():
                    file.write(piece)
            count, notes = await asyncio.to_thread(_take_in, workspace, path, frame, given)
        finally:
            remove(folder)
        return {**workspace.state(), "result": count, "notes": list(notes)}

    return router


def _take_in(workspace: Workspace, path: Path, frame: int, given: bool) -> tuple[int, tuple[str, ...]]:
    with workspace.edit():
        return import_masks(workspace.project, path, given, frame)


def _events(clients: Clients) -> APIRouter:
    router = APIRouter()

    @router.websocket("/events")
    async def events(socket: WebSocket) -> None:
        await socket.accept()
        queue = clients.join()

        async def forward() -> None:
            while True:
                await socket.send_json(await queue.get())

        sender = asyncio.create_task(forward())
        try:
            while True:
                await socket.receive_text()  # nothing is expected; this is how one hears that it closed
        except WebSocketDisconnect:
            pass
        finally:
            sender.cancel()
            clients.leave(queue)

    return router
