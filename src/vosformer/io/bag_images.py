"""Image messages of ROS, raw and compressed, as arrays; see sensor_msgs/Image and sensor_msgs/CompressedImage."""

from __future__ import annotations

import re
import struct
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

KINDS = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
"""Names of the messages, as rosbags gives them for ROS 1, too."""

_GENERIC = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)C?(\d*)")
_TYPES = {"8U": "u1", "8S": "i1", "16U": "u2", "16S": "i2", "32S": "i4", "32F": "f4", "64F": "f8"}
_PLAIN = {"mono": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}
# ROS names a Bayer pattern by its first two pixels, OpenCV by the two in the middle of the second row.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_YUV = {"uyvy": cv2.COLOR_YUV2RGB_UYVY, "yuv422": cv2.COLOR_YUV2RGB_UYVY, "yuyv": cv2.COLOR_YUV2RGB_YUYV,
        "yuv422_yuy2": cv2.COLOR_YUV2RGB_YUYV}  # fmt: skip
_NV = {"nv12": cv2.COLOR_YUV2RGB_NV12, "nv21": cv2.COLOR_YUV2RGB_NV21}


class Stamp(NamedTuple):
    """When and in which frame of reference a picture was taken (std_msgs/Header), and when it was recorded.

    Attributes:
        seconds: of the header.
        nanoseconds: of the header.
        frame_id: of the header.
        recorded: nanoseconds, the time of the message in the bag.
    """

    seconds: int
    nanoseconds: int
    frame_id: str
    recorded: int

    @property
    def time(self) -> float:
        """Seconds; those of the recording where the header has none."""
        taken = self.seconds + self.nanoseconds / 1e9
        return taken if taken > 0 else self.recorded / 1e9


def read_stamp(data: bytes | memoryview, recorded: int, ros2: bool) -> Stamp:
    """Read the header that a serialized image message begins with.

    Raises:
        ValueError: it is cut off.
    """
    order = "<" if not ros2 or data[1] & 1 else ">"
    begin = 4  # behind the mark of CDR in ROS 2, and behind the running number in ROS 1
    try:
        seconds, nanoseconds, length = struct.unpack_from(f"{order}{'i' if ros2 else 'I'}II", data, begin)
    except struct.error:
        raise ValueError(f"a message of {len(data)} bytes is no image") from None
    name = bytes(data[begin + 12 : begin + 12 + length]).rstrip(b"\0").decode(errors="replace")
    return Stamp(seconds, nanoseconds, name, recorded)


def pixels(message: Any) -> NDArray[np.generic]:
    """Return the picture of a message: [H,W], or [H,W,3] in RGB, or [H,W,4] in RGBA, at its own depth: uint8, uint16
    or float32.

    Raises:
        ValueError: its encoding is not known, or it is cut off or damaged.
    """
    values = _compressed(message) if hasattr(message, "format") else _raw(message)
    return values if values.dtype in (np.uint8, np.uint16) else values.astype(np.float32)


def _compressed(message: Any) -> NDArray[np.generic]:
    if "compressedDepth" in message.format:
        raise ValueError(f"a depth picture ({message.format}) has no colors to follow objects by")
    found = cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise ValueError(f"a compressed picture of format {message.format!r} and {len(message.data)} bytes does not decode")
    return _as_rgb(found)


def _as_rgb(found: NDArray[np.generic]) -> NDArray[np.generic]:
    """Turn BGR, as OpenCV decodes, into RGB; gray stays."""
    if found.ndim == 2:
        return found
    return np.ascontiguousarray(found[..., [2, 1, 0, 3] if found.shape[2] == 4 else [2, 1, 0]])


def _raw(message: Any) -> NDArray[np.generic]:
    name = str(message.encoding).lower()
    if name in _NV:
        rows = _rows(message, message.height * 3 // 2, "u1", 1)
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(rows[..., 0]), _NV[name]))
    if name in _YUV:
        return np.asarray(cv2.cvtColor(np.ascontiguousarray(_rows(message, message.height, "u1", 2)), _YUV[name]))
    kind, channels = _kind(name)
    values = np.ascontiguousarray(_rows(message, message.height, kind, channels))
    if name.startswith("bayer_"):
        return np.asarray(cv2.cvtColor(values[..., 0], _BAYER[name[6:10]]))
    if channels == 1:
        return values[..., 0]
    if channels not in (3, 4):
        raise ValueError(f"the encoding {message.encoding!r} has {channels} channels")
    # cv_bridge reads kinds without color names (8UC3) as BGR, as OpenCV does.
    return values if name.startswith("rgb") else _as_rgb(values)


def _kind(name: str) -> tuple[str, int]:
    """Return (NumPy's type, channels) of an encoding whose pixels lie one after the other."""
    generic = _GENERIC.fullmatch(name.upper())
    if generic:
        return _TYPES[generic[1]], int(generic[2] or 1)
    color, bits = name.rstrip("0123456789"), name[len(name.rstrip("0123456789")) :]
    channels = 1 if color.startswith("bayer_") and color[6:] in _BAYER else _PLAIN.get(color)
    if channels is None or bits not in ("8", "16"):
        raise ValueError(
            f"the encoding {name!r} is not known; known are rgb8, bgr8, mono8, mono16, bayer_rggb8, yuv422, 8UC3 and the like"
        )
    return f"u{int(bits) // 8}", channels


def _rows(message: Any, height: int, kind: str, channels: int) -> NDArray[np.generic]:
    """Return [height,width,channels]; rows may be longer than their pixels."""
    dtype = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    used = message.width * channels * dtype.itemsize
    step = int(message.step) or used
    data = np.frombuffer(message.data, np.uint8)
    if step < used or len(data) < step * (height - 1) + used or height < 1 or used < 1:
        raise ValueError(
            f"a picture of {message.width} x {message.height} pixels ({message.encoding}) has {len(data)} bytes in rows of {step}"
        )
    rows = np.lib.stride_tricks.as_strided(data, (height, used), (step, 1))
    values = np.ascontiguousarray(rows).view(dtype).reshape(height, message.width, channels)
    return values.astype(dtype.newbyteorder("="), copy=False)
