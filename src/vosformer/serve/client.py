"""`Client`: `Session` at the other end of a network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vosformer import errors
from vosformer.errors import InputError, ServerError, VOSError
from vosformer.inference.prediction import Prediction
from vosformer.inference.session import as_image, as_labels, whole_numbers
from vosformer.io.files import replacing
from vosformer.prompts.prompt import Prompt
from vosformer.serve import wire
from vosformer.serve.wire import FrameFormat, MaskFormat

if TYPE_CHECKING:
    from typing_extensions import Self

_MOST_BYTES = 256 << 20  # of an answer
_OWN_ERRORS = {kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, VOSError)}


@dataclass(frozen=True)
class RemotePrediction(Prediction):
    """The masks of one frame, as a server sent them; see `Prediction`. Probabilities stay on the server.

    Attributes:
        scores: id -> presence score in [0,1].
        number: how many frames the session saw before this one.
    """

    scores: Mapping[int, float] = field(default_factory=dict)
    number: int = 0

    def score(self, i: int) -> float:
        """See `Prediction.score`."""
        self._check(i)
        return self.scores[i]

    def probability(self, i: int) -> NDArray[np.float32]:
        """Refuse: a server sends masks and scores.

        Raises:
            InputError: always.
        """
        raise InputError("a server sends masks and scores, no probabilities; run a vosformer.Session for these")

    def margins(self) -> NDArray[np.float32]:
        """Refuse, as `probability` does.

        Raises:
            InputError: always.
        """
        return self.probability(0)


class Client:
    """Follows objects through a stream of frames on a server (`vosformer serve`), as `Session` does here.

    The session on the server lasts as long as the connection; `close` ends both. Errors are those of `Session`, and `ServerError`.

    Example:
        >>> with vosformer.Client("http://127.0.0.1:8123", token) as session:      # doctest: +SKIP
        ...     for frame, labels in frames_with_a_mask_on_some:
        ...         out = session.step(frame, labels)
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        frames: FrameFormat = "raw",
        jpeg_quality: int = 95,
        masks: MaskFormat = "rle",
        timeout: float = 60.0,
    ) -> None:
        """Connect, and open a session.

        Args:
            url: of the server, http:// or https://.
            token: that the server printed; None: what the environment variable VOSFORMER_TOKEN holds.
            frames: how frames are sent: "raw" and "png" give the masks of a session here; "jpeg" is a tenth of the bytes, and loses
                a little.
            jpeg_quality: 1 to 100.
            masks: how masks come: "rle" (any ids) or "png" (ids 0 to 65535).
            timeout: seconds to wait for an answer.

        Raises:
            ServerError: it cannot be reached, refuses, or is full.
            InputError: an argument that cannot be used, or the package websockets is missing.
        """
        parts = urlsplit(str(url))
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise InputError(f"the server is {url!r}, expected an address like http://127.0.0.1:8123")
        if frames not in get_args(FrameFormat) or masks not in get_args(MaskFormat):
            raise InputError(f"frames={frames!r}, masks={masks!r}: expected {get_args(FrameFormat)} and {get_args(MaskFormat)}")
        if not isinstance(jpeg_quality, int) or not 1 <= jpeg_quality <= 100:
            raise InputError(f"jpeg_quality is {jpeg_quality!r}, expected a whole number from 1 to 100")
        self._url, self._frames, self._quality, self._masks = url.rstrip("/"), frames, jpeg_quality, masks
        self._timeout, token = timeout, token or os.environ.get("VOSFORMER_TOKEN")
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._ids: tuple[int, ...] = ()
        self._open = ExitStack()
        try:
            from websockets.sync.client import connect
        except ImportError:
            raise InputError("the client needs the package websockets: pip install 'vosformer[client]'") from None
        try:
            self._socket = self._open.enter_context(
                connect(
                    f"ws{self._url.removeprefix('http')}/v1/stream?masks={masks}",
                    additional_headers=self._headers,
                    compression=None,  # frames and masks are compressed already
                    open_timeout=timeout,
                    max_size=_MOST_BYTES,
                    ping_interval=None,  # the server asks; while a frame is computed nothing is to be said
                )
            )
        except Exception as error:
            self._say_why_refused(error)
            raise ServerError(f"{url}: {_why(error)}") from None
        self.about: Mapping[str, Any] = self._receive()[0]
        """What the server says of itself: version, model, limits."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that are being tracked, ascending."""
        return self._ids

    def step(
        self,
        frame: NDArray[np.uint8] | Tensor,
        labels: ArrayLike | None = None,
        *,
        ids: Sequence[int] | None = None,
        prompts: Mapping[int, Prompt] | None = None,
        **options: Any,
    ) -> RemotePrediction:
        """Return the masks of the next frame; the arguments are those of `Session.step`.

        Raises:
            InputError: the frame or labels cannot be used; the session is left as it was.
            ServerError: the server is gone, or failed.
        """
        image = as_image(frame)
        entry, picture = wire.encode_frame(image, self._frames, self._quality)
        header: dict[str, Any] = {"do": "step", "frame": entry}
        if labels is not None:
            given = as_labels(labels, image.shape[:2])
            header["rle"] = wire.encode_masks(given, tuple(int(i) for i in np.unique(given) if i != 0))
        if ids is not None:
            header["ids"] = whole_numbers(ids, "ids")
        if prompts:
            header["prompts"] = wire.encode_prompts(prompts, *image.shape[:2])
        if options:
            header["options"] = options
        said, body = self._ask(wire.pack(header, picture))
        height, width = int(said["height"]), int(said["width"])
        found = (
            wire.decode_labels(body, height * width)
            if self._masks == "png"
            else wire.decode_masks(said["masks"], height, width)
        )
        self._ids = tuple(said["ids"])
        scores = {int(i): float(score) for i, score in said["scores"].items()}
        return RemotePrediction(found, self._ids, frozenset(said["given"]), scores=scores, number=said["frame"])

    def remove(self, i: int) -> None:
        """Stop tracking an object.

        Raises:
            InputError: no object of that id is being tracked.
            ServerError: the server is gone.
        """
        self._ids = tuple(self._ask(wire.pack({"do": "remove", "id": whole_numbers([i], "id")[0]}))[0]["ids"])

    def reset(self) -> None:
        """Forget everything; the next frame may have another size.

        Raises:
            ServerError: the server is gone.
        """
        self._ids = tuple(self._ask(wire.pack({"do": "reset"}))[0]["ids"])

    def save(self, path: str | Path) -> None:
        """Write the session's state to a file here (safetensors), atomically; a `Session` of the same model can load it, too.

        Raises:
            ServerError: the server is gone.
            OutputError: the file could not be written.
        """
        with self._http("GET") as answer, replacing(Path(path)) as part, part.open("wb") as file:
            shutil.copyfileobj(answer, file)

    def load(self, path: str | Path) -> None:
        """Go back to a state that `save` of a client or a session of the same model and settings wrote.

        Raises:
            InputError: the file is missing, broken, or of other settings.
            ServerError: the server is gone.
        """
        try:
            size = Path(path).stat().st_size
            with Path(path).open("rb") as file, self._http("PUT", file, size):
                pass
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from None
        with self._http("GET", state=False) as answer:
            self._ids = tuple(json.load(answer)["ids"])

    def close(self) -> None:
        """End the connection, and the session; may be called more than once."""
        with suppress(Exception):
            self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, message: bytes) -> tuple[dict[str, Any], memoryview]:
        most = int(self.about["limits"]["message_bytes"])
        if len(message) > most:
            raise InputError(f"the frame takes {len(message)} bytes; the server takes {most}: send it as jpeg, or smaller")
        try:
            self._socket.send(message)
        except Exception as error:
            raise ServerError(f"{self._url}: {_why(error)}") from None
        return self._receive()

    def _receive(self) -> tuple[dict[str, Any], memoryview]:
        try:
            answer = self._socket.recv(self._timeout, decode=False)
        except TimeoutError:
            self.close()  # an answer that comes later would be taken for that to the next question
            raise ServerError(f"{self._url} did not answer within {self._timeout:g} seconds; the session is closed") from None
        except Exception as error:
            raise ServerError(f"{self._url}: {_why(error)}") from None
        header, body = wire.unpack(answer)
        _raise_error(header)
        return header, body

    def _http(self, method: str, data: Any = None, size: int | None = None, state: bool = True) -> Any:
        """Ask over HTTP for this session; its state is too large for a message."""
        path = f"sessions/{quote(self.about['session'])}{'/state' if state else ''}"
        return self._request(method, path, data, {} if size is None else {"Content-Length": str(size)})

    def _say_why_refused(self, error: Exception) -> None:
        """Raise what HTTP says of a refusal; a WebSocket is refused without a reason."""
        if getattr(getattr(error, "response", None), "status_code", None) == 403:
            self._request("GET", "").close()

    def _request(self, method: str, path: str, data: Any = None, headers: Mapping[str, str] | None = None) -> Any:
        request = Request(f"{self._url}/v1/{path}".rstrip("/"), data, {**self._headers, **(headers or {})}, method=method)
        try:
            return urlopen(request, timeout=self._timeout)
        except HTTPError as error:
            with suppress(ValueError):
                _raise_error(json.loads(error.read()))
            raise ServerError(f"{self._url}: {_why(error)}") from None
        except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
            raise ServerError(f"{self._url}: {_why(error)}") from None


def _raise_error(answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        raise _OWN_ERRORS.get(str(answer.get("kind")), ServerError)(str(answer["error"]))


def _why(error: BaseException) -> str:
    status = getattr(error, "code", None)
    if status == 401:
        return "the token is missing or wrong: give token=, or set VOSFORMER_TOKEN"
    if status == 403:
        return "the server does not answer to this name; start it with --allow-host NAME"
    return f"the server cannot be reached, or broke off: {getattr(error, 'reason', None) or error or type(error).__name__}"
