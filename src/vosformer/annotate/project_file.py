"""`project.json`: what a project's folder says about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vosformer.errors import InputError

VERSION = 1
"""Of the files that this vosformer writes."""


def read_about(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's `project.json`.

    Raises:
        InputError: it is missing, broken, or of a later version.
    """
    path = folder / "project.json"
    try:
        about: dict[str, Any] = json.loads(path.read_bytes())
        version = int(about["vosformer_project"])
        assert {"video", "objects", "given", "applied"} <= set(about)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(f"{path} is no project file of vosformer: {error or 'entries are missing'}") from error
    if version > VERSION:
        raise InputError(f"{path} is of version {version}; this vosformer knows versions up to {VERSION}: update it")
    return about
