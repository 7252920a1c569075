"""What a benchmark's server takes: a zip file of masks, or files of its own form."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from vosformer.errors import DataError
from vosformer.evaluation.layout import mask_files
from vosformer.evaluation.masks import labels_present, read_labels
from vosformer.evaluation.protocols import Protocol
from vosformer.evaluation.ranges import find_beside
from vosformer.evaluation.track_videos import TrackSet, burst_results, youtube_vis_results
from vosformer.io import write_bytes
from vosformer.io.files import replacing

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the same results give the same bytes
_VISOR_NAMES = "val_data_mapping.json"  # written by VISOR's own conversion to the DAVIS layout
_VISOR_INFO = {
    "Dataset Name": "VISOR",
    "Challenge": "semi_supervised_vos",
    "Version": "0.1",
    "Resolution": "854x480",
    "Release Date": "Aug 2022",
    "URL": "https://epic-kitchens.github.io/VISOR",
    "Details": "This is a VISOR VOS submission file. All annotations must have 854x480 resolution",
}


class HandIn(NamedTuple):
    """What is handed in.

    Attributes:
        path: the file for the server.
        notes: what could not be done, in words.
        results: a file that the scorer reads; None = the masks.
    """

    path: Path
    notes: tuple[str, ...] = ()
    results: Path | None = None


def hand_in(protocol: Protocol, root: Path, out: Path, masks: Path, names: Sequence[str], tracks: TrackSet | None) -> HandIn:
    """Write what the benchmark's server takes.

    Args:
        protocol: of the benchmark.
        root: the data set.
        out: folder for the file.
        masks: the folder of the masks.
        names: the videos.
        tracks: of BURST and YouTube-VIS.

    Raises:
        DataError: VISOR's names of objects lack some.
        OutputError: the file cannot be written.
    """
    if tracks is not None:
        return _tracks(protocol, out, masks, tracks)
    if protocol.handin == "visor":
        mapping = find_beside(root, (_VISOR_NAMES,))
        if mapping is not None:
            return HandIn(_visor(out, masks, names, mapping))
    files = chain.from_iterable(sorted((masks / name).rglob("*.png")) for name in names)
    path = out / f"{protocol.name}.zip"
    _zip(path, ((f"{protocol.zip_prefix}{file.relative_to(masks).as_posix()}", file.read_bytes) for file in files))
    if protocol.handin == "visor":
        note = f"the server wants polygons by object name in val.zip, and {root} has no {_VISOR_NAMES} with these names"
        return HandIn(path, (f"{note} (VISOR's own conversion to the DAVIS layout writes it)",))
    return HandIn(path)


def _tracks(protocol: Protocol, out: Path, masks: Path, tracks: TrackSet) -> HandIn:
    results = out / "results.json"
    gather: Callable[[Path, Path], Any] = burst_results if protocol.handin == "burst" else youtube_vis_results
    data = json.dumps(gather(tracks.given, masks)).encode()
    write_bytes(results, data)
    if protocol.handin == "burst":
        return HandIn(results, results=results)
    _zip(out / f"{protocol.name}.zip", [("results.json", lambda: data)], zipfile.ZIP_DEFLATED)
    return HandIn(out / f"{protocol.name}.zip", results=results)


def _zip(path: Path, files: Iterable[tuple[str, Callable[[], bytes]]], method: int = zipfile.ZIP_STORED) -> None:
    """Write a zip file; PNGs do not get smaller, so they are only stored."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", method) as archive:
        for name, read in files:
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.compress_type = method
            archive.writestr(entry, read())


def _visor(out: Path, masks: Path, names: Sequence[str], mapping: Path) -> Path:
    """Write val.zip with val.json: for each frame the objects by name, each with the outlines of its parts and holes."""
    try:
        known: dict[str, dict[str, str]] = json.loads(mapping.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{mapping} cannot be read as JSON: {error}") from error
    frames = list(chain.from_iterable(_visor_frames(name, masks / name, known.get(name, {}), mapping) for name in names))
    data = json.dumps({"info": _VISOR_INFO, "video_annotations": frames}).encode()
    _zip(out / "val.zip", [("val.json", lambda: data)], zipfile.ZIP_DEFLATED)
    return out / "val.zip"


def _visor_frames(name: str, folder: Path, objects: dict[str, str], mapping: Path) -> Iterator[dict[str, Any]]:
    video = "_".join(name.split("_")[:2])
    for path in mask_files(folder).values():
        labels = read_labels(path)
        annotations = []
        for number in sorted(labels_present(labels)):
            if str(number) not in objects:
                raise DataError(f"{mapping} has no name for object {number} of {name}, which {path} shows")
            rings, _ = cv2.findContours((labels == number).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
            annotations.append({"name": objects[str(number)], "segments": [ring.reshape(-1, 2).tolist() for ring in rings]})
        image = {"image_path": f"{video}/{path.name}", "name": path.name, "video": video, "subsequence": name}
        yield {"image": image, "annotations": annotations}
