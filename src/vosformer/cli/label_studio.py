"""`vosformer label-studio`."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Annotated

import tyro
from rich.text import Text

from vosformer.cli.session_options import SessionOptions
from vosformer.cli.terminal import messages
from vosformer.errors import InputError
from vosformer.web.listen import LOCAL, host_names, listen


def label_studio(
    media: Path,
    port: int = 9090,
    host: str = "127.0.0.1",
    allow_host: tuple[str, ...] = (),
    most_frames: int = 1000,
    presence: float = 0.5,
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(),
) -> None:
    """Serve a machine learning backend for Label Studio: boxes on some frames of a video become boxes on those that follow.

    With the environment variable VOSFORMER_PASSWORD set, Label Studio has to send it (basic authentication, user vosformer).

    Args:
        media: the folder that Label Studio's local files lie in (its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT); nothing else is read.
        port: to listen on; 0 takes a free one.
        host: address to listen on.
        allow_host: further names under which Label Studio may ask, as NAME or NAME:PORT; '*' for any.
        most_frames: followed after the first box.
        presence: an object whose presence score is below this is not there.
        run: how the model runs.
    """
    try:
        import uvicorn

        from vosformer.plugins.labelstudio import Backend, create_app
    except ImportError as error:
        raise InputError(f"the backend needs more packages ({error.name}): pip install 'vosformer[serve]'") from None
    if not media.is_dir():
        raise InputError(f"--media is {media}, which is no folder")
    password = os.environ.get("VOSFORMER_PASSWORD")
    if password is None and host not in LOCAL:
        raise InputError(
            f"--host is {host}: set VOSFORMER_PASSWORD, or everybody in the network can ask for your videos' boxes"
        )
    secret = None if password is None else base64.b64encode(f"vosformer:{password}".encode()).decode()
    run.prepare()
    backend = Backend(run.session(), media, most_frames, presence)
    listener = listen(host, port, 60.0)
    port = listener.getsockname()[1]
    shown, names = host_names(host)
    hosts = None if "*" in allow_host else {f"{name}:{port}" for name in names} | {*allow_host}
    _, app = create_app(backend, hosts, None if secret is None else f"Basic {secret}")
    address = Text(f"http://{shown}:{port}", style="bold")
    messages().print(address, " (the URL for Label Studio's settings, Model; Ctrl-C ends)")
    uvicorn.Server(uvicorn.Config(app, log_level="warning", limit_concurrency=64)).run(sockets=[listener])
