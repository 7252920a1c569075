"""A `vosformer serve` to talk to: in a thread here, or in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from vosformer import Session
from vosformer.serve.server import Service, create_app, uvicorn_config
from vosformer.serve.store import Limits
from vosformer.web.listen import listen

TOKEN = "a-token-for-tests"


@dataclass
class Running:
    url: str
    service: Service


@contextmanager
def running(session: Session, limits: Limits | None = None, **settings) -> Iterator[Running]:
    """Serve a session's forks until the block ends."""
    limits = limits or Limits()
    listener = listen("127.0.0.1", 0, limits.idle_seconds)
    port = listener.getsockname()[1]
    app, guard = create_app(session, limits, TOKEN, {f"127.0.0.1:{port}"}, **settings)
    server = uvicorn.Server(uvicorn_config(guard, limits))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield Running(f"http://127.0.0.1:{port}", app.state.service)
    finally:
        server.should_exit = True
        thread.join(20)


@contextmanager
def served_apart(sessions: int) -> Iterator[tuple[str, int]]:
    """Serve a tiny model from another process; give (address, process id)."""
    process = subprocess.Popen([sys.executable, __file__, str(sessions)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process.pid
    finally:
        process.terminate()
        process.wait(30)


def tiny_session(name: str = "aot-t") -> Session:
    from vosformer.testing import tiny_model

    return Session(tiny_model(name), device="cpu", dtype="fp32", size=64)


def resident_mb(pid: int) -> float:
    """Memory of a process, in megabytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no such process")


def _main(sessions: int) -> None:
    import torch

    from vosformer.device import tune_process

    torch.set_num_threads(1)
    tune_process(torch.device("cpu"))
    limits = Limits(sessions=sessions, idle_seconds=60)
    listener = listen("127.0.0.1", 0, limits.idle_seconds)
    port = listener.getsockname()[1]
    _, guard = create_app(tiny_session(), limits, TOKEN, {f"127.0.0.1:{port}"})
    print(f"http://127.0.0.1:{port}", flush=True)
    uvicorn.Server(uvicorn_config(guard, limits)).run(sockets=[listener])


if __name__ == "__main__":
    _main(int(sys.argv[1]))
