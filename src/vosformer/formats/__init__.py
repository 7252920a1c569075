"""Annotation formats, read and written: `read(path)` gives a `LabeledVideo`, `write(video, path, format)` takes one.

Each format is one file here; `FORMATS` lists them by name.
"""

from __future__ import annotations

from vosformer.formats.api import convert, read, write
from vosformer.formats.labeled import LabeledFrame, LabeledVideo, Mask, ObjectInfo
from vosformer.formats.names import names_json, palette_of, read_names
from vosformer.formats.prompts import AnnotatedMasks, read_masks
from vosformer.formats.registry import FORMATS, Format, find_format, recognize
from vosformer.formats.sink import FormatSink

__all__ = [
    "FORMATS",
    "AnnotatedMasks",
    "Format",
    "FormatSink",
    "LabeledFrame",
    "LabeledVideo",
    "Mask",
    "ObjectInfo",
    "convert",
    "find_format",
    "names_json",
    "palette_of",
    "read",
    "read_masks",
    "read_names",
    "recognize",
    "write",
]
