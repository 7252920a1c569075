"""EXR pictures with Cryptomatte: the mattes of all objects in one file, picked by name in compositing programs.

Cryptomatte 1.2 (Psyop): an id is the MurmurHash3 of a name, as the float of the same bits; each pixel has pairs
of id and coverage, the largest first, two pairs a layer.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from vosformer.errors import OutputError
from vosformer.io.files import make_folder, replacing, set_aside
from vosformer.io.frames import Frame
from vosformer.io.sinks import Labels, Probability, Sink

_LAYER = "CryptoObject"
_PAIRS = 6  # as is usual: three layers of two


def hash_bits(name: str) -> int:
    """Return the 32 bits of a name: MurmurHash3 whose exponent is kept away from 0 and 255, which are no normal floats.

    Raises:
        OutputError: mmh3 is not installed.
    """
    value = int(package("mmh3").hash(name.encode(), signed=False))
    return value ^ (1 << 23) if (value >> 23 & 255) in (0, 255) else value


def package(name: str) -> Any:
    """Import a package of vosformer[editors].

    Raises:
        OutputError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise OutputError(f"EXR with Cryptomatte needs the package {name}: install vosformer[editors]") from error


class CryptomatteImages(Sink):
    """An EXR a frame with the Cryptomatte of all objects: `folder/<stem>.<frame name>.exr`, coverage being the probability.

    Args:
        folder: is created.
        stem: what the files begin with.
        names: id -> name; others are called "object 7".

    Raises:
        OutputError: the folder cannot be created, or a package is missing.
    """

    soft = True

    def __init__(self, folder: str | Path, stem: str, names: Mapping[int, str] | None = None) -> None:
        self._exr = package("OpenEXR")
        package("mmh3")
        self._folder, self._stem = make_folder(Path(folder)), stem
        self.name = Path(folder).name
        self._names = dict(names or {})
        self._ids: set[int] = set()

    def check_ids(self, ids: Iterable[int]) -> None:
        """Keep the ids for the manifest."""
        self._ids.update(ids)

    def write(self, frame: Frame, labels: Labels, scores: Mapping[int, float], probability: Probability) -> None:
        """See `Sink.write`."""
        self._ids.update(scores)
        bits = {i: hash_bits(self._names.get(i) or f"object {i}") for i in sorted(self._ids)}
        seen = [i for i in sorted(bits) if i in scores or (labels == i).any()]
        coverage = np.stack([np.zeros(labels.shape, np.float32)] * _PAIRS + [probability(i).clip(0, 1) for i in seen])
        coverage /= np.maximum(coverage.sum(0), 1)  # edges that were grown or softened overlap
        codes = np.array([0.0] * _PAIRS + [struct.unpack("<f", struct.pack("<I", bits[i]))[0] for i in seen], np.float32)
        order = np.argsort(-coverage, axis=0, kind="stable")[:_PAIRS]
        values = np.take_along_axis(coverage, order, 0)
        ids = np.where(values > 0, codes[order], np.float32(0)).astype(np.float32)
        channels = {f"{_LAYER}.{letter}": np.ascontiguousarray(values[0]) for letter in "RGB"}
        for rank in range(_PAIRS):
            layer, pair = f"{_LAYER}{rank // 2:02d}", "RG" if rank % 2 == 0 else "BA"
            channels[f"{layer}.{pair[0]}"] = np.ascontiguousarray(ids[rank])
            channels[f"{layer}.{pair[1]}"] = np.ascontiguousarray(values[rank])
        manifest = {self._names.get(i) or f"object {i}": f"{value:08x}" for i, value in bits.items()}
        key = f"cryptomatte/{hash_bits(_LAYER):08x}"[:19]
        header = {
            "compression": self._exr.ZIP_COMPRESSION,
            "type": self._exr.scanlineimage,
            f"{key}/name": _LAYER,
            f"{key}/hash": "MurmurHash3_32",
            f"{key}/conversion": "uint32_to_float32",
            f"{key}/manifest": json.dumps(manifest),
        }
        with replacing(self._folder / f"{self._stem}.{frame.name}.exr") as temporary, self._exr.File(header, channels) as file:
            file.write(str(temporary))

    def set_aside(self) -> None:
        """See `Sink.set_aside`."""
        self.notes = set_aside(self._folder, "*.exr")

    def present(self, frames: int) -> bool:
        """See `Sink.present`."""
        return sum(1 for _ in self._folder.glob("*.exr")) >= frames
