"""ROS bags to read: every kind of file, and messages as cameras send them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
START = 1_700_000_000_000_000_000  # ns
STEP = 33_000_000


class Bag:
    """A bag that is written message by message."""

    def __init__(self, path: Path, kind: str = "mcap") -> None:
        self.ros2 = kind != "ros1"
        self.types = get_typestore(Stores.ROS2_HUMBLE if self.ros2 else Stores.ROS1_NOETIC)
        plugin = StoragePlugin.SQLITE3 if kind == "db3" else StoragePlugin.MCAP
        self.writer = Writer2(path, version=9, storage_plugin=plugin) if self.ros2 else Writer1(path)
        self.connections = {}

    def __enter__(self) -> Bag:
        self.writer.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.writer.close()

    def put(self, topic: str, number: int, kind: str, recorded: int | None = None, **fields) -> None:
        known, taken = self.types.types, START + number * STEP
        stamp = known["builtin_interfaces/msg/Time"](sec=taken // 10**9, nanosec=taken % 10**9)
        extra = {} if self.ros2 else {"seq": number}
        header = known["std_msgs/msg/Header"](stamp=stamp, frame_id="camera_left", **extra)
        message = known[kind](header=header, **fields)
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.types)
        data = self.types.serialize_cdr(message, kind) if self.ros2 else self.types.serialize_ros1(message, kind)
        self.writer.write(self.connections[topic], taken + 5_000_000 if recorded is None else recorded, data)

    def raw(
        self, topic: str, number: int, values: np.ndarray, encoding: str, padding: int = 0, big: bool = False, **more
    ) -> None:
        """Put an array [H,W,...] as it is."""
        values = values.astype(values.dtype.newbyteorder(">" if big else "<"))
        rows = values.reshape(values.shape[0], -1).view(np.uint8)
        step = rows.shape[1] + padding
        data = np.zeros((rows.shape[0], step), np.uint8)
        data[:, : rows.shape[1]] = rows
        height = more.pop("height", values.shape[0])
        self.put(topic, number, RAW, height=height, width=values.shape[1], encoding=encoding, is_bigendian=int(big), step=step,
                 data=data.ravel(), **more)  # fmt: skip

    def compressed(self, topic: str, number: int, image: np.ndarray, suffix: str, form: str) -> None:
        """Put a picture (BGR or gray) as a file of a format."""
        data = cv2.imencode(suffix, image)[1].ravel()
        self.put(topic, number, COMPRESSED, format=form, data=data)
