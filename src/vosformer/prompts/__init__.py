"""Clicks, boxes, scribbles and hand-drawn shapes -> a mask; see `docs/prompts.md`."""

from __future__ import annotations

from vosformer.prompts.drawing import Scissors, brush, polygon, stroke
from vosformer.prompts.marker import Marker, Method, mark
from vosformer.prompts.objects import MarkedObjects, check_prompts, mark_objects
from vosformer.prompts.prompt import Prompt

__all__ = [
    "MarkedObjects",
    "Marker",
    "Method",
    "Prompt",
    "Scissors",
    "brush",
    "check_prompts",
    "mark",
    "mark_objects",
    "polygon",
    "stroke",
]
