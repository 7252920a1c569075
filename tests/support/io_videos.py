"""Small videos that the tests of io encode on the fly."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICK = Fraction(1, 1000)


def picture(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture whose number can be read from its brightness, with a red mark in the top left corner."""
    image = np.full((height, width, 3), 40 + 4 * number, np.uint8)
    image[: height // 3, : width // 3] = (200, 20, 20)
    return image


def number_of(image: np.ndarray) -> int:
    return round((float(image[-8:, -8:].mean()) - 40) / 4)


def noisy(number: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A picture that compresses badly, so that every packet of the video is large."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3)).astype(np.uint8)


def encode(
    path: Path,
    images: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    times: Sequence[float] | None = None,
    fps: int = 25,
    gop: int = 10,
    b_frames: int = 2,
    rotation: int | None = None,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width, stream.pix_fmt = *images[0].shape[:2], "yuv420p"
        stream.codec_context.gop_size = gop
        if codec in ("libx264", "mpeg4"):
            stream.codec_context.max_b_frames = b_frames
        stream.bit_rate = 8_000_000
        if codec == "libx264":
            stream.options = {"preset": "veryfast", "crf": "10", "sc_threshold": "0", **(options or {})}
        if times is not None:
            stream.codec_context.time_base = TICK
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] / TICK), TICK
            else:
                frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def packets(path: Path) -> list[tuple[int, bool, bytes]]:
    """(time stamp, key, data) of every packet, by time."""
    with av.open(str(path)) as container:
        return sorted((packet.pts, packet.is_keyframe, bytes(packet)) for packet in container.demux(video=0) if packet.size)


def spoil(path: Path, places: Sequence[int]) -> None:
    """Overwrite the packets of those frames, without touching the container."""
    data = path.read_bytes()
    found = packets(path)
    for place in places:
        assert data.count(found[place][2]) == 1
        data = data.replace(found[place][2], b"\xff" * len(found[place][2]))
    path.write_bytes(data)
