"""What keeps strangers out of a server: only its own address as `Host` and `Origin`, a token, and nothing of any size."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_HEADERS = [
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; "
     b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]  # fmt: skip


class _TooLargeError(Exception):
    pass


@dataclass(frozen=True)
class GuardRules:
    """Who is let in, and with how much.

    Attributes:
        hosts: values of `Host` that are this server; None: any (behind a proxy that has its own rules).
        most: path -> the most bytes that a body may have.
        authorization: what programs must send as the header `Authorization`; None: nothing is asked for (a token is in the path).
        open_paths: what may be asked for without it.
        programs: WebSockets of programs, which send no `Origin`, are let in, too.
        patience: seconds to wait for the next piece of a body; None: for ever.
    """

    hosts: Collection[str] | None
    most: Callable[[str], int]
    authorization: str | None = None
    open_paths: Collection[str] = ()
    programs: bool = False
    patience: float | None = None


class Guard:
    """Refuses requests with another `Host` or `Origin` (pages of other sites, rebound names), without the token, and bodies that are
    too large or too slow.

    Args:
        app: what is guarded.
        rules: see there.
    """

    def __init__(self, app: App, rules: GuardRules) -> None:
        self._app, self._rules = app, rules
        self._hosts = None if rules.hosts is None else {host.encode() for host in rules.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with a refusal."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self._is_strange(headers, scope["type"] == "websocket"):
            await _refuse(scope, send, 403, "this server is not known under this address, or the page is of another one")
            return
        if not self._may_enter(scope["path"], headers.get(b"authorization", b"")):
            await _refuse(scope, send, 401, "the token is missing or wrong (the header Authorization)")
            return
        if scope["type"] == "websocket":
            await self._app(scope, receive, send)
            return
        most = self._rules.most(scope["path"])
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await _refuse(scope, send, 413, f"more than {most} bytes are not taken")
            return
        await self._bounded(scope, receive, send, most)

    def _is_strange(self, headers: dict[bytes, bytes], websocket: bool) -> bool:
        host, origin = headers.get(b"host", b"").lower(), headers.get(b"origin")
        if self._hosts is not None and host not in self._hosts:
            return True
        if origin is None:
            return websocket and not self._rules.programs
        # Where a token is asked for, the server may be behind a proxy that speaks https.
        schemes = (b"http://",) if self._rules.authorization is None else (b"http://", b"https://")
        return origin not in {scheme + name for name in self._hosts or {host} for scheme in schemes}

    def _may_enter(self, path: str, authorization: bytes) -> bool:
        expected = self._rules.authorization
        return expected is None or path in self._rules.open_paths or hmac.compare_digest(authorization, expected.encode())

    async def _bounded(self, scope: Scope, receive: Receive, send: Send, most: int) -> None:
        """Count what comes, since a length need not be announced, or be true."""
        got, begun, patience = 0, False, self._rules.patience

        async def counted() -> MutableMapping[str, Any]:
            nonlocal got, patience
            message = await asyncio.wait_for(receive(), patience)
            if not message.get("more_body"):
                patience = None  # what may still come is that the other side hangs up
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
        except asyncio.TimeoutError:
            if not begun:
                await _refuse(scope, send, 408, f"nothing came for {self._rules.patience:g} seconds")


async def _refuse(scope: Scope, send: Send, status: int, text: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})  # before it was accepted: the other side sees a 403
        return
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain; charset=utf-8")]})
    await send({"type": "http.response.body", "body": text.encode()})
