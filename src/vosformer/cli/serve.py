"""`vosformer serve`."""

from __future__ import annotations

import math
import os
import secrets
from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

from vosformer.cli.session_options import SessionOptions
from vosformer.cli.terminal import messages, show_warning
from vosformer.errors import InputError
from vosformer.serve.store import Limits
from vosformer.web.listen import LOCAL, host_names, listen

_LEAST_TOKEN = 16


def serve(
    port: int = 8123,
    host: str = "127.0.0.1",
    allow_host: tuple[str, ...] = (),
    token_file: Path | None = None,
    max_sessions: int = 16,
    max_objects: int = 64,
    max_megapixels: float = 9.5,
    max_message: float = 64.0,
    idle: float = 300.0,
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(),
) -> None:
    """Follow objects for other programs: sessions over HTTP and WebSocket, `vosformer.Client` at the other end.

    Clients need a token: that of the environment variable VOSFORMER_TOKEN, or of --token-file, else a random one, which is printed.

    Args:
        port: to listen on; 0 takes a free one.
        host: address to listen on. Another one than 127.0.0.1 lets others in your network ask, if they have the token.
        allow_host: further names under which clients may ask for this server, as NAME or NAME:PORT; '*' for any, e.g. behind a proxy.
        token_file: file whose first line is the token.
        max_sessions: open at once.
        max_objects: tracked in one session.
        max_megapixels: of a frame, in millions of pixels.
        max_message: megabytes (10^6 bytes) of a frame with its masks, as it is sent.
        idle: seconds after which an unused session is closed, and a connection that does not read.
        run: how the model runs; --max-memory bounds the memory bank of each session.
    """
    try:
        import uvicorn

        from vosformer.serve.server import create_app, uvicorn_config
    except ImportError as error:
        raise InputError(f"the server needs more packages ({error.name}): pip install 'vosformer[serve]'") from None
    bounds = {"sessions": max_sessions, "objects": max_objects, "megapixels": max_megapixels, "message": max_message}
    for name, value in bounds.items():
        if not 0 < value < math.inf:
            raise InputError(f"--max-{name} is {value:g}, expected a number above 0")
    if not 0 < idle < math.inf:
        raise InputError(f"--idle is {idle:g}, expected seconds above 0")
    token, is_new = _token(token_file)
    limits = Limits(max_sessions, max_objects, int(max_megapixels * 1e6), int(max_message * 1e6), idle_seconds=idle)
    run.prepare()
    session = run.session()
    listener = listen(host, port, idle)
    port = listener.getsockname()[1]
    shown, names = host_names(host)
    hosts = None if "*" in allow_host else {f"{name}:{port}" for name in names} | {*allow_host}
    _, app = create_app(session, limits, token, hosts, run.read_options)
    if host not in LOCAL:
        show_warning(
            "everyone in your network who has the token can use this server, and what is sent can be read on the way; put a proxy "
            "with https before it where that matters"
        )
    messages().print(Text(f"http://{shown}:{port}", style="bold"), f" (model {run.model}; Ctrl-C ends)")
    messages().print(f"token: {token}" if is_new else "token: as given")
    uvicorn.Server(uvicorn_config(app, limits)).run(sockets=[listener])


def _token(path: Path | None) -> tuple[str, bool]:
    """Return the token, and whether it is to be printed."""
    token = os.environ.get("VOSFORMER_TOKEN")
    if path is not None:
        try:
            token = (path.read_text().splitlines() or [""])[0].strip()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: the token cannot be read: {error}") from None
    if token is None:
        return secrets.token_urlsafe(24), True
    if len(token) < _LEAST_TOKEN or not token.isascii() or not token.isprintable():
        raise InputError(f"the token has {len(token)} characters, expected at least {_LEAST_TOKEN} printable ones")
    return token, False
