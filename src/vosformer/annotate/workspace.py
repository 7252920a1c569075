"""A project at work: its editor, one session, at most one propagation in the background, and whoever wants to hear about it."""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from vosformer.annotate.editor import Editor
from vosformer.annotate.exchange import export_formats
from vosformer.annotate.project import Project
from vosformer.annotate.propagation import Propagation, PropagationPlan
from vosformer.annotate.review import doubts_of, rank, suggest
from vosformer.errors import VOSError
from vosformer.inference.session import Session
from vosformer.io.random_access import RandomAccess

Event = dict[str, Any]
_LOOK_SECONDS = 15.0  # of a propagation, after which it is prepared again: that takes tenths of a second, many frames of a GPU
_SAVE_FRAMES = 200  # propagated frames after which scores.csv is brought up to date


class Workspace:
    """What the server, and tests, work with.

    Args:
        project: that is open.
        new_session: makes the session, when it is needed for the first time.
        options: of the model, for every step.
        prepare: is called in the thread of each propagation, before it begins and now and then: what else the machine does changes.

    Attributes:
        frames: the frames, by number.
        film: the same for the film strip, whose leaps must not disturb who steps from frame to frame.
        editor: all that changes masks of single frames and objects.
        listeners: are called with every event, from any thread.
    """

    def __init__(
        self,
        project: Project,
        new_session: Callable[[], Session],
        options: Mapping[str, Any] | None = None,
        prepare: Callable[[], None] = lambda: None,
    ) -> None:
        self.project = project
        self.frames = RandomAccess(project.source)
        self.film = RandomAccess(project.source, megabytes=0)
        self.editor = Editor(project, self.frames)
        self.listeners: list[Callable[[Event], None]] = []
        self._new_session, self._options, self._prepare = new_session, options, prepare
        self._session: Session | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._job: Event | None = None
        self._starting = threading.Lock()
        self._serials = itertools.count()

    def tell(self, event: Event) -> None:
        """Pass an event on to all listeners."""
        for listener in [*self.listeners]:
            listener(event)

    def state(self) -> dict[str, Any]:
        """Return all that a page shows besides pictures; its size grows with objects and given frames, not with the video.

        Answers may overtake each other on their way: the one with the higher `serial` is the newer one.
        """
        project = self.project
        with project.lock:
            about = {
                "name": project.source.name.replace("\\", "/").rsplit("/", 1)[-1],
                "frames": project.frames,
                "height": project.source.height,
                "width": project.source.width,
                "fps": None if project.source.fps is None else float(project.source.fps),
            }
            return {
                "video": about,
                "folder": str(project.folder),
                "objects": [project.objects[i].to_json() for i in sorted(project.objects)],
                "given": {str(n): given.to_json() for n, given in sorted(project.given.items())},
                "spans": _spans(project.masked()),
                "undo": project.undoable,
                "redo": project.redoable,
                "version": project.version,
                "serial": next(self._serials),
                "job": self._job,
                "exports": export_formats(),
            }

    @contextmanager
    def edit(self) -> Iterator[Editor]:
        """Edit masks: a propagation that is under way is stopped first, what it did stays; listeners hear of the change."""
        self.cancel()
        before = self.project.version
        yield self.editor
        if self.project.version != before:
            self.tell({"event": "changed", "version": self.project.version})

    def undo(self) -> str | None:
        """Take the last action back."""
        with self.edit():
            return self.project.undo()

    def redo(self) -> str | None:
        """Do the last undone action again."""
        with self.edit():
            return self.project.redo()

    def propagate(self, plan: PropagationPlan, what: str) -> None:
        """Begin a propagation in the background; another one is stopped first."""
        with self._starting:
            self.cancel()
            self._stop.clear()
            self._job = {"what": what, "done": 0, "total": 0, "frame": None}
            self._thread = threading.Thread(target=self._run, args=(plan, what), name="propagation", daemon=True)
            self._thread.start()

    def cancel(self) -> bool:
        """Stop the propagation, if there is one; return once it has ended."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return False
        self._stop.set()
        thread.join()
        self._thread = None
        return True

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the propagation to end; return whether it has."""
        thread = self._thread
        if thread is not None:
            thread.join(seconds)
        return thread is None or not thread.is_alive()

    def close(self) -> None:
        """Stop what goes on, and save."""
        self.cancel()
        self.project.close()

    def lanes(self, start: int, stop: int, bins: int) -> dict[str, Any]:
        """For the time line: per object the lowest presence score and the highest doubt of each of `bins` parts of a range."""
        project = self.project
        with project.lock:
            stop = min(stop, project.frames)
            start = max(0, min(start, stop - 1))
            edges = np.unique(np.linspace(start, stop, min(bins, stop - start) + 1).astype(int))
            given = self._given_of()
            lanes = {}
            for i in project.objects:
                score = np.nan_to_num(project.measures.column(i, "score")[start:stop].astype(float), nan=np.inf)
                doubt = doubts_of(project.measures, i, given.get(i, ()))[start:stop]
                lows = np.minimum.reduceat(score, edges[:-1] - start)
                highs = np.maximum.reduceat(doubt, edges[:-1] - start)
                lanes[str(i)] = {
                    "score": [None if np.isinf(v) else round(float(v), 2) for v in lows],
                    "doubt": [round(float(v), 2) for v in highs],
                }
            return {"edges": edges.tolist(), "lanes": lanes}

    def review(self, most: int = 50) -> list[dict[str, Any]]:
        """Return the doubtful frames, worst first."""
        with self.project.lock:
            found = rank(self.project.measures, self._given_of(), most)
        return [
            {"frame": d.frame, "id": d.id, "doubt": round(d.doubt, 3), "signs": dict(d.signs), "reason": d.reason}
            for d in found
            if d.id in self.project.objects
        ]

    def suggest(self, k: int) -> list[int]:
        """Return the k frames whose correction would help most."""
        with self.project.lock:
            return suggest(self.project.measures, k, self._given_of())

    def _given_of(self) -> dict[int, list[int]]:
        """Object -> frames on which it is given."""
        found: dict[int, list[int]] = {}
        for n, given in sorted(self.project.given.items()):
            for i in given.ids:
                found.setdefault(i, []).append(n)
        return found

    def _run(self, plan: PropagationPlan, what: str) -> None:
        end: Event = {"event": "done", "what": what, "stopped": False, "error": None}
        try:
            self.tell({"event": "progress", **(self._job or {})})
            self._prepare()
            prepared = time.monotonic()
            if self._session is None:
                self._session = self._new_session()
            run = Propagation(self.project, self._session, plan, self.project.folder / ".history" / "work", self._options)
            with self.project.begin(what) as action:
                for step in run.run(action, self._stop.is_set):
                    self._job = {"what": what, "done": step.done, "total": step.total, "frame": step.frame}
                    self.tell({"event": "progress", **self._job})
                    # What the page began with, such as its film strip, is done after the first frame.
                    if step.done == 1 or time.monotonic() - prepared > _LOOK_SECONDS:
                        self._prepare()
                        prepared = time.monotonic()
                    if step.done % _SAVE_FRAMES == 0:
                        self.project.checkpoint()
            end["stopped"] = self._stop.is_set()
        except VOSError as error:
            end["error"] = str(error)
        except Exception as error:  # a page that waits must hear of it, whatever it is
            traceback.print_exc()
            end["error"] = f"{type(error).__name__}: {error}"
        finally:
            self._job = None
            self.tell(end)
            self.tell({"event": "changed", "version": self.project.version})


def _spans(masked: Any) -> list[list[int]]:
    """Ranges [start, stop) of frames that have masks."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], masked.astype(np.int8), [0]])))
    return np.asarray(edges).reshape(-1, 2).tolist()
