"""A machine learning backend for Label Studio: boxes on some frames of a video become boxes on all that follow."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np
from defusedxml import ElementTree
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

import vosformer
from vosformer.errors import InputError, VOSError
from vosformer.inference.prediction import Prediction
from vosformer.inference.session import Session
from vosformer.io import Source, open_source
from vosformer.prompts import mark
from vosformer.web.guard import Guard, GuardRules

_BYTES = 32 << 20
_LOCAL = "/data/local-files/"


class Interface(NamedTuple):
    """What a labeling configuration calls the parts that matter here.

    Attributes:
        video: name of the Video tag.
        key: of a task's data, that the Video tag shows.
        boxes: name of the VideoRectangle tag.
    """

    video: str
    key: str
    boxes: str


def read_interface(config: str) -> Interface:
    """Find the tags in a labeling configuration.

    Raises:
        InputError: it is no XML, or has no Video with a VideoRectangle.
    """
    try:
        root = ElementTree.fromstring(config)
    except Exception as error:  # of the parser, and of what defuses it
        raise InputError(f"the labeling configuration is no XML: {error}") from None
    for boxes in root.iter("VideoRectangle"):
        for video in root.iter("Video"):
            if video.get("name") == boxes.get("toName"):
                return Interface(video.get("name", ""), video.get("value", "").removeprefix("$"), boxes.get("name", ""))
    raise InputError("the labeling configuration has no Video with a VideoRectangle, which is what this backend fills in")


class Backend:
    """Follows the boxes that a person drew through the frames after them.

    Args:
        session: has seen nothing.
        media: folder that Label Studio's local files lie in (its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT).
        most_frames: followed after the first box.
        presence: an object whose presence score is below this is not there.
    """

    def __init__(self, session: Session, media: Path, most_frames: int = 1000, presence: float = 0.5) -> None:
        self._session, self._media = session, media.resolve()
        self._most, self._presence = most_frames, presence
        self._lock = threading.Lock()
        self.version = f"vosformer-{vosformer.__version__}"

    def predict(
        self, tasks: Sequence[Mapping[str, Any]], config: str, context: Mapping[str, Any] | None
    ) -> list[dict[str, Any]]:
        """Return a prediction a task: the regions of the context with a sequence of boxes on every frame that was followed.

        Raises:
            InputError: a configuration or task that this backend cannot use.
        """
        interface = read_interface(config)
        drawn = [region for region in (context or {}).get("result", []) if region.get("type") == "videorectangle"]
        if not drawn:
            return [{"result": [], "score": 0.0, "model_version": self.version} for _ in tasks]
        if len(tasks) != 1:
            raise InputError(f"boxes were drawn for {len(tasks)} tasks at once, expected one")
        with open_source(self._find(tasks[0], interface)) as source, self._lock:
            result, score = self._follow(source, drawn, interface)
        return [{"result": result, "score": score, "model_version": self.version}]

    def _find(self, task: Mapping[str, Any], interface: Interface) -> Path:
        """Return the file of a task's video; only files below `media` are opened."""
        address = str(task.get("data", {}).get(interface.key, ""))
        parts = urlsplit(address)
        if parts.scheme or not parts.path.startswith(_LOCAL):
            raise InputError(f"the video is {address!r}, expected one of Label Studio's local files ({_LOCAL}?d=...)")
        name = parse_qs(parts.query).get("d", [""])[0]
        path = (self._media / name).resolve()
        if not path.is_relative_to(self._media) or not path.is_file():
            raise InputError(
                f"there is no file {name!r} below {self._media}: start the backend with Label Studio's document root"
            )
        return path

    def _follow(
        self, source: Source, drawn: Sequence[Mapping[str, Any]], interface: Interface
    ) -> tuple[list[dict[str, Any]], float]:
        boxes = _keyframes(drawn, source)
        if not boxes:
            raise InputError("the regions have no box that is shown on a frame of the video")
        first = min(boxes)
        session = self._session.fork()
        sequences: dict[int, list[dict[str, Any]]] = {n: [] for n in range(1, len(drawn) + 1)}
        scores: list[float] = []
        for frame in source.frames(first, first + self._most + 1):
            if frame.image is None:
                continue
            marked = {i: mark(frame.image, box=box) for i, box in boxes.get(frame.number, {}).items()}
            labels = np.zeros(frame.image.shape[:2], np.int32)
            for i, mask in marked.items():
                labels[mask] = i
            given = sorted(i for i in marked if i in session.ids or (labels == i).any())
            out = session.step(frame.image, labels if given else None, ids=given or None)
            self._put(sequences, out, frame.number, frame.time, scores)
        result = [_region(region, sequences[n], source, interface) for n, region in enumerate(drawn, 1) if sequences[n]]
        return result, float(np.mean(scores)) if scores else 0.0

    def _put(
        self,
        sequences: Mapping[int, list[dict[str, Any]]],
        out: Prediction,
        number: int,
        time: float | None,
        scores: list[float],
    ) -> None:
        """Add a frame's boxes; where an object is gone, its last box says that it ends there."""
        height, width = out.labels.shape
        found = out.boxes()
        for i in out.ids:
            score, sequence = out.score(i), sequences[i]
            if i not in found or score < self._presence:
                if sequence:
                    sequence[-1]["enabled"] = False
                continue
            left, top, right, bottom = found[i]
            scores.append(score)
            entry = {"frame": number + 1, "enabled": True, "rotation": 0, "time": round(time or 0.0, 4)}
            place = {"x": left / width, "y": top / height, "width": (right - left) / width, "height": (bottom - top) / height}
            sequence.append({**entry, **{name: round(100 * value, 4) for name, value in place.items()}})


def _keyframes(drawn: Sequence[Mapping[str, Any]], source: Source) -> dict[int, dict[int, tuple[float, float, float, float]]]:
    """Return frame (from 0) -> object (from 1) -> box in pixels, for every box that somebody drew."""
    found: dict[int, dict[int, tuple[float, float, float, float]]] = {}
    for n, region in enumerate(drawn, 1):
        for entry in region.get("value", {}).get("sequence", []):
            try:
                frame = int(entry["frame"]) - 1
                x, y, wide, high = (float(entry[name]) / 100 for name in ("x", "y", "width", "height"))
            except (KeyError, TypeError, ValueError):
                raise InputError(f"a box of region {region.get('id')!r} has no frame, x, y, width and height") from None
            if 0 <= frame < (source.count or frame + 1) and wide > 0 and high > 0:
                width, height = source.width, source.height
                found.setdefault(frame, {})[n] = (x * width, y * height, (x + wide) * width, (y + high) * height)
    return found


def _region(region: Mapping[str, Any], sequence: list[dict[str, Any]], source: Source, interface: Interface) -> dict[str, Any]:
    count, rate = source.count or 0, float(source.fps or 25)
    value = {**region.get("value", {}), "framesCount": count, "duration": round(count / rate, 4), "sequence": sequence}
    names = {"type": "videorectangle", "from_name": interface.boxes, "to_name": interface.video}
    return {"id": region.get("id"), **names, "value": value, "score": 1.0, "origin": "prediction"}


def create_app(backend: Backend, hosts: set[str] | None, authorization: str | None) -> tuple[FastAPI, Guard]:
    """Return the application that Label Studio calls, and the same behind its guard.

    Args:
        backend: does the work.
        hosts: values of `Host` that are this server; None: any.
        authorization: what the header `Authorization` must be; None: everybody is let in.
    """
    app = FastAPI(title="vosformer for Label Studio", docs_url=None, redoc_url=None)

    @app.exception_handler(VOSError)
    async def refused(request: Request, error: VOSError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 400)

    @app.get("/")
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "UP", "model_class": "vosformer"}

    @app.post("/setup")
    async def setup(request: dict[str, Any]) -> dict[str, str]:
        if request.get("schema"):
            read_interface(str(request["schema"]))
        return {"model_version": backend.version}

    @app.post("/predict")
    def predict(request: dict[str, Any]) -> dict[str, Any]:
        context = (request.get("params") or {}).get("context")
        results = backend.predict(request.get("tasks", []), str(request.get("label_config", "")), context)
        return {"results": results, "model_version": backend.version}

    @app.post("/webhook", status_code=201)
    async def webhook(request: dict[str, Any]) -> dict[str, Any]:
        return {}  # it learns nothing from annotations

    return app, Guard(app, GuardRules(hosts, lambda path: _BYTES, authorization, ("/", "/health"), patience=60.0))
