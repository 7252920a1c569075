"""What keeps strangers out of a local server: only its own address as `Host` and `Origin`, and nothing of any size."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

GESTURE_BYTES = 4 << 20
UPLOAD_BYTES = 2 << 30

_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
     b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip


class _TooLargeError(Exception):
    pass


class Guard:
    """Refuses requests with another `Host` or `Origin` (pages of other sites, rebound names), and bodies that are too large.

    Args:
        app: what is guarded.
        hosts: values of `Host` that are this server.
        uploads: end of the paths that may take large bodies.
    """

    def __init__(self, app: App, hosts: set[str], uploads: str) -> None:
        self._app, self._uploads = app, uploads
        self._hosts = {host.encode() for host in hosts}
        self._origins = {f"http://{host}".encode() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        strange = headers.get(b"host", b"").lower() not in self._hosts
        origin = headers.get(b"origin")
        if strange or (origin is not None and origin not in self._origins) or (scope["type"] == "websocket" and origin is None):
            await _refuse(scope, send, 403, "this address is not the annotator's")
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        most = UPLOAD_BYTES if scope["path"].endswith(self._uploads) else GESTURE_BYTES
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await _refuse(scope, send, 413, f"more than {most} bytes are not taken")
            return
        await self._bounded(scope, receive, send, most)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Count what comes, since a length need not be announced, or be true."""
        got, begun = 0, False

        async def counted() -> MutableMapping[str, Any]:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > most:
                raise _TooLargeError
            return message

        async def marked(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        try:
            await self._app(scope, counted, marked)
        except _TooLargeError:
            if not begun:
                await _refuse(scope, send, 413, f"more than {most} bytes are not taken")


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
    await send({"type": "http.response.body", "body": text.encode()})
