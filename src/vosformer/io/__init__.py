"""Video and masks, in and out; see `docs/io.md`."""

from __future__ import annotations

from vosformer.io.background import BackgroundSink, Prefetch
from vosformer.io.bag_sink import LabelBag
from vosformer.io.bags import BagFile
from vosformer.io.files import write_bytes
from vosformer.io.folders import image_folder
from vosformer.io.frames import Frame, Source
from vosformer.io.images import write_picture
from vosformer.io.labels import LabelMap, check_size, read_labels
from vosformer.io.live import LiveStream
from vosformer.io.mask_folder import MaskFolder, read_mask_folder, read_masks
from vosformer.io.notes import Notes
from vosformer.io.overlay import CutOutVideo, OverlayVideo, draw
from vosformer.io.pages import PictureFile
from vosformer.io.palette import DAVIS_PALETTE, colors
from vosformer.io.records import ScoresFile
from vosformer.io.sinks import CutOuts, LabelImages, ObjectImages, Sink, Sinks, indexed_png
from vosformer.io.sources import open_source
from vosformer.io.stills import Arrays, ImageFiles, Stream
from vosformer.io.video import VideoFile

__all__ = [
    "DAVIS_PALETTE",
    "Arrays",
    "BackgroundSink",
    "BagFile",
    "CutOutVideo",
    "CutOuts",
    "Frame",
    "ImageFiles",
    "LabelBag",
    "LabelImages",
    "LabelMap",
    "LiveStream",
    "MaskFolder",
    "Notes",
    "ObjectImages",
    "OverlayVideo",
    "PictureFile",
    "Prefetch",
    "ScoresFile",
    "Sink",
    "Sinks",
    "Source",
    "Stream",
    "VideoFile",
    "check_size",
    "colors",
    "draw",
    "image_folder",
    "indexed_png",
    "open_source",
    "read_labels",
    "read_mask_folder",
    "read_masks",
    "write_bytes",
    "write_picture",
]
