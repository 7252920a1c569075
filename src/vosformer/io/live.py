"""Cameras, RTSP and other streams that come once and in order."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import chain
from typing import Any

import av

from vosformer.errors import InputError
from vosformer.io.container import mean_rate, video_stream
from vosformer.io.decoded import Look, look_at, pixel_aspect, stretch
from vosformer.io.frames import Frame, Image, Source, check_live_range, frame_name
from vosformer.io.levels import Levels

_OPEN_SECONDS = 10.0
_READ_SECONDS = 10.0

# FFmpeg's capture device and the name of camera n, by platform.
_CAMERAS = {"linux": ("v4l2", "/dev/video{}"), "darwin": ("avfoundation", "{}"), "win32": ("dshow", "video={}")}


class LiveStream(Source):
    """Frames of a camera or a network address, as they come; nothing is buffered here.

    A model that is slower than the camera should read through `Prefetch(..., latest=True)`, which drops frames instead of falling
    behind. Frames that do not decode have no image; they take a number.

    Args:
        address: "camera:0", "camera:/dev/video2" or an address that FFmpeg reads: rtsp://, http://, https://, udp://, srt://, ...
        kind: FFmpeg's name of an input device or format, if the address alone does not tell it.
        options: further options for FFmpeg, e.g. {"video_size": "1280x720"}.
        stream: see `VideoFile`.
        levels: values that become black and white; None: values of more than 8 bits are stretched as the first frame needs it.

    Raises:
        InputError: it does not open within ten seconds, has no video, or no frame of it decodes.
    """

    live = True

    def __init__(
        self,
        address: str,
        kind: str | None = None,
        options: dict[str, str] | None = None,
        stream: int | None = None,
        levels: Levels | None = None,
    ) -> None:
        self.name = re.sub(r"//[^/@]*@", "//", address)  # messages must not show passwords
        options = dict(options or {})
        # A file behind http can wait, a camera or a broadcast cannot.
        self.real_time = not address.startswith("http")
        if address.startswith("camera:"):
            device, pattern = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
            kind = kind or device
            target = address.removeprefix("camera:") or "0"
            address = pattern.format(target) if target.isdecimal() else target
        elif address.startswith("rtsp"):
            options.setdefault("rtsp_transport", "tcp")  # over UDP lost packets tear every picture
        try:
            self._container = av.open(address, format=kind, options=options, timeout=(_OPEN_SECONDS, _READ_SECONDS))
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise InputError(f"{self.name} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
        try:
            video = video_stream(self._container, self.name, stream, self.notes)
            self.fps = mean_rate(video, None)
            self._levels = levels
            self._look: Look | None = None
            self._frames = self._decode(video)
            head = self._first()
        except BaseException:
            self._container.close()
            raise
        self._frames = chain(head, self._frames)

    def _first(self) -> list[Frame]:
        head: list[Frame] = []
        for frame in self._frames:
            head.append(frame)
            if frame.image is not None:
                self.height, self.width = frame.image.shape[:2]
                return head
        raise InputError(f"{self.name} opened, but no frame of it decodes")

    @property
    def count(self) -> None:
        """Unknown."""
        return

    def frames(self, start: int | None = None, stop: int | None = None, step: int = 1) -> Iterator[Frame]:
        """See `Source.frames`; frames that were passed over are gone."""
        check_live_range(self, start, step)
        first = start or 0
        if stop is not None and stop <= first:
            return
        for frame in self._frames:
            if frame.number >= first and (frame.number - first) % step == 0:
                yield frame
            if stop is not None and frame.number + 1 >= stop:
                return

    def close(self) -> None:
        """Let go of the device or connection."""
        self._container.close()

    def _decode(self, stream: Any) -> Iterator[Frame]:
        number, origin = 0, None
        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, OSError) as error:
                raise InputError(f"{self.name} broke off after {number} frames: {error.strerror or error}") from error
            if packet is None:
                return
            try:
                decoded = packet.decode()
            except av.error.FFmpegError as error:
                yield Frame(number, frame_name(number), None, None, f"the frame does not decode ({error.strerror})")
                number += 1
                continue
            for frame in decoded:
                origin = frame.time if origin is None else origin
                time = None if frame.time is None or origin is None else frame.time - origin
                image = None if frame.is_corrupt else self._shown(stream, frame, number)
                yield Frame(number, frame_name(number), image, time, None if image is not None else "the frame is damaged")
                number += 1

    def _shown(self, stream: Any, frame: Any, number: int) -> Image:
        if self._look is None:
            self._look = look_at(self.name, frame, self._levels, self.notes)
            self.pixel_aspect = pixel_aspect(stream, self._look)
            stretch(self._look, [frame])
        return self._look.image(frame, number)
