"""The application of `vosformer serve`: sessions over HTTP, or one for each WebSocket."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import uvicorn
from fastapi import APIRouter, FastAPI, File, Form, Request, Response, UploadFile, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse
from pydantic import ValidationError
from starlette.background import BackgroundTask

import vosformer
from vosformer.errors import InputError, VOSError
from vosformer.inference.prediction import Prediction
from vosformer.inference.session import Session
from vosformer.io.files import remove
from vosformer.serve import wire
from vosformer.serve.answers import first_problem, read_frame, read_labels, read_step, result_header, take_step
from vosformer.serve.requests import Remove, Reset, Said, SentFrame
from vosformer.serve.store import Held, Limits, RefusedError, Store
from vosformer.serve.wire import MaskFormat
from vosformer.web.guard import Guard, GuardRules

_OPEN_PATHS = ("/health", "/openapi.json")
_SWEEP_SECONDS = 2.0


class Service:
    """What the routes share.

    Args:
        session: has seen nothing; every client gets a fork.
        limits: see there.
        options: of the model, for every step.
    """

    def __init__(self, session: Session, limits: Limits, options: Mapping[str, Any]) -> None:
        self.limits, self._options = limits, options
        self.store = Store(session, limits)
        self.origin = session.origin

    def about(self) -> dict[str, Any]:
        """Return what clients may want to know beforehand."""
        return {"version": vosformer.__version__, "model": dict(self.origin), "limits": self.limits.__dict__}

    async def step(
        self, held: Held, image: wire.Image, labels: wire.Labels | None, said: Said, masks: MaskFormat
    ) -> tuple[dict[str, Any], bytes]:
        """Track one frame; return (what is said about it, the PNG of its masks or nothing)."""

        def work(session: Session) -> Prediction:
            return take_step(session, image, labels, said, self.limits, self._options, masks)

        out = await self.store.run(held, work)
        held.frames += 1
        return await asyncio.to_thread(_encode, out, held.frames - 1, masks)

    async def sweep(self) -> None:
        """Close unused sessions, for ever."""
        while True:
            await asyncio.sleep(min(_SWEEP_SECONDS, self.limits.idle_seconds / 2))
            self.store.sweep()


def _encode(out: Prediction, number: int, masks: MaskFormat) -> tuple[dict[str, Any], bytes]:
    return result_header(out, number, masks), wire.labels_png(out.labels) if masks == "png" else b""


def create_app(
    session: Session,
    limits: Limits,
    token: str | None,
    hosts: Collection[str] | None,
    options: Mapping[str, Any] | None = None,
) -> tuple[FastAPI, Guard]:
    """Return the application, and the same behind its guard.

    Args:
        session: has seen nothing; every client gets a fork of it.
        limits: of sessions, objects, bytes and time.
        token: what clients must send; None: everybody is let in.
        hosts: values of `Host` that are this server; None: any.
        options: of the model, for every step.
    """
    service = Service(session, limits, dict(options or {}))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        sweeping = asyncio.create_task(service.sweep())
        yield
        sweeping.cancel()
        await asyncio.to_thread(service.store.shut_down)

    # The pages that FastAPI makes of the description ask another server for their scripts.
    app = FastAPI(title="vosformer", version=vosformer.__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service

    @app.exception_handler(VOSError)
    async def refused(request: Request, error: VOSError) -> JSONResponse:
        status = error.status if isinstance(error, RefusedError) else 400
        return JSONResponse(_problem(error), status, {"retry-after": "1"} if status in (409, 503) else None)

    app.include_router(_general(service))
    app.include_router(_sessions(service), prefix="/v1/sessions")
    app.include_router(_states(service), prefix="/v1/sessions")
    app.include_router(_stream(service), prefix="/v1")
    most = {True: limits.state_bytes, False: limits.message_bytes}
    rules = GuardRules(
        hosts,
        lambda path: most[path.endswith("/state")],
        None if token is None else f"Bearer {token}",
        _OPEN_PATHS,
        programs=True,
        patience=limits.idle_seconds,
    )
    return app, Guard(app, rules)


def uvicorn_config(app: Guard, limits: Limits) -> uvicorn.Config:
    """Return how the application is to be run: what is taken from the network ahead of the model is bounded."""
    return uvicorn.Config(
        app,
        log_level="warning",
        ws="websockets-sansio",  # it reads no further message before the last one was taken
        ws_max_size=limits.message_bytes,
        ws_per_message_deflate=False,  # a small message could unpack to a large one, and pictures are compressed already
        ws_ping_timeout=limits.idle_seconds,
        limit_concurrency=4 * limits.sessions + 32,
        timeout_graceful_shutdown=5,
    )


def _problem(error: VOSError) -> dict[str, Any]:
    kind = "ServerError" if isinstance(error, RefusedError) else type(error).__name__
    return {"error": str(error), "kind": kind}


def _general(service: Service) -> APIRouter:
    router = APIRouter(tags=["server"])

    @router.get("/health")
    async def health() -> dict[str, Any]:
        """Say that the server is up, and how full it is; needs no token."""
        return {"status": "ok", "sessions": len(service.store), "most_sessions": service.limits.sessions}

    @router.get("/v1")
    async def about() -> dict[str, Any]:
        """Return version, model and limits."""
        return service.about()

    return router


def _sessions(service: Service) -> APIRouter:
    router, store, limits = APIRouter(tags=["sessions"]), service.store, service.limits

    @router.post("", status_code=201)
    async def open_session() -> dict[str, Any]:
        """Open a session; it is closed when it is not used for `idle_seconds`."""
        return {"id": store.open().id, "idle_seconds": limits.idle_seconds}

    @router.get("/{session}")
    async def look(session: str) -> dict[str, Any]:
        """Return what is tracked in a session."""
        held = store.find(session)
        size = held.session.sizes
        return {
            "id": held.id,
            "frames": held.frames,
            "ids": list(held.session.ids),
            "size": None if size is None else list(size[0]),
            "memory_bytes": held.session.memory_bytes,
        }

    @router.delete("/{session}", status_code=204)
    async def close_session(session: str) -> None:
        """Close a session."""
        store.close(store.find(session).id)

    @router.post("/{session}/step")
    async def step(
        session: str,
        frame: Annotated[UploadFile, File(description="JPEG, PNG or WebP; or raw uint8 RGB, with height and width")],
        labels: Annotated[UploadFile | None, File(description="PNG of ids, at the frame's size")] = None,
        said: Annotated[str, Form(description="JSON: rle, ids, prompts, options; see the schema Said")] = "{}",
        height: Annotated[int | None, Form(ge=1, le=65_535)] = None,
        width: Annotated[int | None, Form(ge=1, le=65_535)] = None,
        masks: MaskFormat = "rle",
    ) -> Response:
        """Track the next frame. masks=rle: JSON; masks=png: a PNG of ids, with the rest as JSON in the header x-result."""
        held = store.find(session)
        try:
            request = Said.model_validate_json(said)
        except ValidationError as error:
            raise InputError(first_problem(error)) from None
        data, drawn = await frame.read(), None if labels is None else await labels.read()
        form: Literal["raw", "jpeg"] = "jpeg" if height is None and width is None else "raw"
        sent = SentFrame(format=form, bytes=len(data), height=height, width=width)

        def decode() -> tuple[wire.Image, wire.Labels | None]:
            image = read_frame(sent, memoryview(data), limits)
            return image, read_labels(request, drawn, image, limits)

        header, png = await service.step(held, *await asyncio.to_thread(decode), request, masks)
        if masks == "rle":
            return JSONResponse(header)
        return Response(png, media_type="image/png", headers={"x-result": json.dumps(header)})

    @router.delete("/{session}/objects/{object_id}", status_code=204)
    async def remove_object(session: str, object_id: int) -> None:
        """Stop tracking an object."""
        await store.run(store.find(session), lambda held: held.remove(object_id))

    @router.post("/{session}/reset", status_code=204)
    async def reset(session: str) -> None:
        """Forget everything; the next frame may have another size."""
        await store.run(store.find(session), lambda held: held.reset())

    return router


def _states(service: Service) -> APIRouter:
    """Add the routes that hand out a session's state, and take it back."""
    router, store = APIRouter(tags=["states"]), service.store

    @router.get("/{session}/state")
    async def save(session: str) -> FileResponse:
        """Return all that a session knows as a safetensors file."""
        folder = Path(tempfile.mkdtemp(prefix="vosformer-"))
        try:
            await store.run(store.find(session), lambda held: held.save(folder / "state.safetensors"))
        except BaseException:
            remove(folder)
            raise
        return FileResponse(folder / "state.safetensors", background=BackgroundTask(remove, folder))

    @router.put("/{session}/state", status_code=204)
    async def load(session: str, request: Request) -> None:
        """Go back to a state that was saved, of a server with the same model and settings."""
        held = store.find(session)
        with tempfile.TemporaryDirectory(prefix="vosformer-") as folder:
            path = Path(folder) / "state.safetensors"
            with path.open("wb") as file:
                async for piece in request.stream():
                    file.write(piece)

            def work(tracked: Session) -> None:
                trial = tracked.fork()
                try:
                    trial.load(path)
                except InputError as error:  # the file's name here says nothing to the client
                    raise InputError(str(error).replace(str(path), "the state")) from None
                service.limits.check_objects(trial.ids)
                tracked.state = trial.state

            await store.run(held, work)

    return router


def _stream(service: Service) -> APIRouter:
    router, store, limits = APIRouter(), service.store, service.limits

    @router.websocket("/stream")
    async def stream(socket: WebSocket, masks: MaskFormat = "rle") -> None:
        """Serve one session as long as the connection lasts: a message in, a message out, nothing in between.

        The next message is only taken once the answer to the last one is sent, so that a client which sends faster than the model
        computes, or does not read, is held up by its own connection and costs nothing here.
        """
        await socket.accept()
        try:
            held = store.open()
        except RefusedError as error:
            await socket.send_bytes(wire.pack(_problem(error)))
            await socket.close(1013)
            return
        try:
            await socket.send_bytes(wire.pack({"session": held.id, **service.about()}))
            while True:
                message = await asyncio.wait_for(socket.receive_bytes(), limits.idle_seconds)
                answer = await _answer(service, held, message, masks)
                await asyncio.wait_for(socket.send_bytes(answer), limits.idle_seconds)
        except WebSocketDisconnect:
            pass
        except KeyError:  # a text came
            with suppress(RuntimeError):
                await socket.close(1003, "messages are bytes here, not text")
        except asyncio.TimeoutError:
            with suppress(RuntimeError, asyncio.TimeoutError):
                await asyncio.wait_for(socket.close(1001, f"idle for {limits.idle_seconds:g} s"), 1)
        finally:
            store.close(held.id)

    return router


async def _answer(service: Service, held: Held, message: bytes, masks: MaskFormat) -> bytes:
    try:
        store = service.store
        store.find(held.id)  # it may have been closed by another request, or by a failure
        header, body = wire.unpack(message)
        if header.get("do") == "remove":
            gone = Remove.model_validate(header).id
            await store.run(held, lambda session: session.remove(gone))
            return wire.pack({"ids": list(held.session.ids)})
        if header.get("do") == "reset":
            Reset.model_validate(header)
            await store.run(held, lambda session: session.reset())
            return wire.pack({"ids": []})
        step, image, labels = await asyncio.to_thread(read_step, header, body, service.limits)
        result, png = await service.step(held, image, labels, step, masks)
        return wire.pack(result, png)
    except ValidationError as error:
        return wire.pack(_problem(InputError(first_problem(error))))
    except VOSError as error:
        return wire.pack(_problem(error))
