"""The sessions that a server holds: how many, how large, how long; one model, one step at a time."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from vosformer.errors import InputError, ServerError, VOSError
from vosformer.inference.session import Session

T = TypeVar("T")
_LOG = logging.getLogger("vosformer.serve")


@dataclass(frozen=True)
class Limits:
    """What a server takes at most.

    Attributes:
        sessions: open at once.
        objects: tracked in one session.
        pixels: of a frame.
        message_bytes: of one request or message.
        state_bytes: of a session's state that is sent to be loaded.
        idle_seconds: after which an unused session is closed, and a connection that does not read or write.
    """

    sessions: int = 16
    objects: int = 64
    pixels: int = 4096 * 2304
    message_bytes: int = 64 << 20
    state_bytes: int = 2 << 30
    idle_seconds: float = 300.0

    def check_frame(self, height: int, width: int) -> None:
        """Refuse frames that are too large.

        Raises:
            InputError: it has more pixels.
        """
        if height * width > self.pixels:
            raise InputError(f"a frame of {width} x {height} pixels was sent; this server takes {self.pixels} at most")

    def check_objects(self, ids: Collection[int]) -> None:
        """Refuse more objects than a session may have.

        Raises:
            InputError: there are more.
        """
        if len(ids) > self.objects:
            raise InputError(f"{len(ids)} objects in one session are too many; this server follows {self.objects} at most")


class RefusedError(ServerError):
    """What a server cannot do now; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Held:
    """One client's session.

    Attributes:
        id: what the client names it by; it cannot be guessed.
        session: shares the weights with all others.
        frames: how many were tracked.
        used: when it was used last, by the monotonic clock.
        busy: a request is being answered.
    """

    id: str
    session: Session
    frames: int = 0
    used: float = field(default_factory=time.monotonic)
    busy: bool = False


class Store:
    """All sessions of a server. Its methods are called from the event loop; the model runs in one thread of its own.

    Args:
        first: a session that has seen nothing; clients get forks of it.
        limits: see there.
    """

    def __init__(self, first: Session, limits: Limits) -> None:
        self.limits = limits
        self._first = first
        self._held: dict[str, Held] = {}
        self._worker = ThreadPoolExecutor(1, "vosformer-serve")

    def __len__(self) -> int:
        return len(self._held)

    def open(self) -> Held:
        """Open a session.

        Raises:
            RefusedError: there are as many as there may be.
        """
        if len(self._held) >= self.limits.sessions:
            raise RefusedError(503, f"all {self.limits.sessions} sessions of this server are in use; try again later")
        held = Held(secrets.token_urlsafe(18), self._first.fork())
        self._held[held.id] = held
        return held

    def find(self, name: str) -> Held:
        """Return the session of that id.

        Raises:
            RefusedError: there is none (any more).
        """
        if name not in self._held:
            raise RefusedError(404, "there is no such session; it was closed, or was not used for too long")
        return self._held[name]

    def close(self, name: str) -> None:
        """Forget a session; one that is not there is no mistake."""
        self._held.pop(name, None)

    def sweep(self) -> None:
        """Close the sessions that were not used for too long."""
        oldest = time.monotonic() - self.limits.idle_seconds
        for held in [held for held in self._held.values() if not held.busy and held.used < oldest]:
            self.close(held.id)

    async def run(self, held: Held, work: Callable[[Session], T]) -> T:
        """Run something with a session, when the model is free: sessions take turns, in the order in which they asked.

        Raises:
            RefusedError: the session is answering another request, or the work failed in an unforeseen way (it is closed
                then, since its state may be broken).
            VOSError: what the work raises; the session is as it was.
        """
        if held.busy:
            raise RefusedError(409, "this session is answering another request: send the next frame after the answer")
        held.busy = True
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, work, held.session)
        except VOSError:
            raise
        except Exception as error:
            _LOG.exception("a session was closed: its work failed")
            self.close(held.id)
            raise RefusedError(500, f"the server failed ({type(error).__name__}), and the session is closed") from error
        finally:
            held.busy, held.used = False, time.monotonic()

    def shut_down(self) -> None:
        """Close all sessions; what is being computed ends first."""
        self._held.clear()
        self._worker.shutdown()
