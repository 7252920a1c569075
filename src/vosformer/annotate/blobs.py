"""Versions of small files by their content, put in their places by hard links, so that an older version costs no second copy."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from vosformer.errors import InputError
from vosformer.io.files import make_folder, output_errors, replacing, write_bytes


class Blobs:
    """A store of file contents: the name of each is a hash of it.

    Args:
        folder: of the store; it is created with the first content.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, data: bytes) -> str:
        """Keep this content; return its name."""
        name = hashlib.sha256(data).hexdigest()[:24]
        path = self.path(name)
        if not path.exists():
            make_folder(path.parent)
            write_bytes(path, data)
        return name

    def name_of(self, path: Path) -> str | None:
        """Keep the content of a file that is there; return its name, None if there is no such file."""
        return self.add(path.read_bytes()) if path.exists() else None

    def place(self, name: str | None, path: Path) -> None:
        """Make `path` that content, in one step; None removes it.

        Raises:
            InputError: the content is not in the store any more.
            OutputError: the file cannot be written.
        """
        if name is None:
            with output_errors(path):
                path.unlink(missing_ok=True)
            return
        blob = self.path(name)
        if not blob.exists():
            raise InputError(f"{blob} is gone: what was undone or redone needs it, so {path.name} stays as it is")
        make_folder(path.parent)
        with replacing(path) as temporary:
            temporary.unlink(missing_ok=True)
            try:
                os.link(blob, temporary)
            except OSError:  # file systems without hard links
                shutil.copyfile(blob, temporary)

    def path(self, name: str) -> Path:
        """Return where a content lies."""
        return self._folder / name[:2] / f"{name[2:]}.png"
