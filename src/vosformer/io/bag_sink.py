"""Label images as a ROS bag, with the stamps of the pictures that they belong to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from vosformer.errors import InputError
from vosformer.io.bag_images import KINDS, Stamp
from vosformer.io.bags import BagFile
from vosformer.io.files import replacing_folder
from vosformer.io.frames import Frame, Source
from vosformer.io.records import Records, rle_counts
from vosformer.io.sinks import Labels, Probability

_NANO = 1_000_000_000
_MOST_ID = 65535


class LabelBag(Records):
    """One sensor_msgs/Image a frame whose pixels are ids (mono16; 32SC1 where an id needs it): a bag in `folder`.

    ROS 2 (MCAP) as ROS 2 records it, or ROS 1 (`labels.bag`) if that is what the source is. Stamp, frame_id and time of recording are
    those of the picture; of sources without stamps the frame's time, from 0.

    Args:
        folder: is replaced as a whole at the end.
        source: the frames.

    Raises:
        InputError: the package rosbags is missing.
    """

    def __init__(self, folder: str | Path, source: Source) -> None:
        try:
            import rosbags  # noqa: F401
        except ImportError:
            raise InputError("bags need the package rosbags: pip install 'vosformer[robotics]'") from None
        super().__init__(folder)
        bag = source if isinstance(source, BagFile) else None
        self._stamp: Callable[[Frame], Stamp] = _own_stamp if bag is None else lambda frame: bag.stamp(frame.number)
        self._ros2 = bag is None or bag.ros2
        self.topic = "/labels" if bag is None else f"{bag.topic.removesuffix('/compressed')}/labels"

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        ids = [int(i) for i in np.unique(labels) if i != 0]
        masks = {str(i): rle_counts(labels == i) for i in ids}
        self._lines.append({"frame": frame.number, "stamp": self._stamp(frame), "size": list(labels.shape), "masks": masks})

    def _put_together(self, path: Path) -> None:
        from rosbags.rosbag1 import Writer as Writer1
        from rosbags.rosbag2 import StoragePlugin
        from rosbags.rosbag2 import Writer as Writer2
        from rosbags.typesys import Stores, get_typestore

        types = get_typestore(Stores.LATEST if self._ros2 else Stores.ROS1_NOETIC)
        with replacing_folder(path) as folder:
            if self._ros2:
                place = folder / path.name  # the writer wants to make its folder itself
                writer: Any = Writer2(place, version=9, storage_plugin=StoragePlugin.MCAP)
            else:
                writer = Writer1(folder / "labels.bag")
            with writer:
                connection = writer.add_connection(self.topic, KINDS[0], typestore=types)
                for record in self._lines.sorted():
                    stamp = Stamp(*record["stamp"])
                    message = _message(types, stamp, _labels(record), self._ros2, record["frame"])
                    data = types.serialize_cdr(message, KINDS[0]) if self._ros2 else types.serialize_ros1(message, KINDS[0])
                    writer.write(connection, stamp.recorded, data)
            if self._ros2:
                for file in place.iterdir():
                    file.rename(folder / file.name)
                place.rmdir()


def _own_stamp(frame: Frame) -> Stamp:
    nanoseconds = round((frame.time or 0) * _NANO)
    return Stamp(nanoseconds // _NANO, nanoseconds % _NANO, "", nanoseconds)


def _labels(record: Mapping[str, Any]) -> NDArray[np.int32]:
    labels = np.zeros(record["size"], np.int32)
    for i, counts in record["masks"].items():
        labels[np.asarray(coco.decode({"size": record["size"], "counts": counts}), bool)] = int(i)
    return labels


def _message(types: Any, stamp: Stamp, labels: NDArray[np.int32], ros2: bool, number: int) -> Any:
    known = types.types
    time = known["builtin_interfaces/msg/Time"](sec=stamp.seconds, nanosec=stamp.nanoseconds)
    header = {"stamp": time, "frame_id": stamp.frame_id, **({} if ros2 else {"seq": number})}
    small = labels.min() >= 0 and labels.max() <= _MOST_ID
    values = labels.astype("<u2" if small else "<i4")
    return known[KINDS[0]](
        header=known["std_msgs/msg/Header"](**header),
        height=labels.shape[0],
        width=labels.shape[1],
        encoding="mono16" if small else "32SC1",
        is_bigendian=0,
        step=values.strides[0],
        data=np.frombuffer(values.tobytes(), np.uint8),
    )
