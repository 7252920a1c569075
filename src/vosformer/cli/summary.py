"""What a run says about itself in the end: `run.json`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from vosformer.inference.tracking import TrackReport
from vosformer.io.files import write_json


def write_summary(path: Path, report: TrackReport, **about: Any) -> None:
    """Write what a run did, with all of its notes, as JSON.

    Args:
        path: of the file.
        report: what the run reported.
        about: further values, e.g. the names of the inputs.

    Raises:
        OutputError: it cannot be written.
    """
    summary = {
        "vosformer": version("vosformer"),
        **about,
        "frames": report.frames,
        "notes": report.notes,
        "repeated": report.bridged,
        "doubts": [doubt._asdict() for doubt in report.doubts],
    }
    write_json(path, summary)
