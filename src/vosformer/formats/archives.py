"""Zips of masks, as annotation tools and the annotator hand them out."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from vosformer.errors import InputError

_MOST_FILES = 500_000
_MOST_BYTES = 16 << 30


class Unpacked:
    """The content of a zip in a temporary folder that lives as long as this object.

    Attributes:
        path: the folder; of a zip with one file or folder, that.

    Args:
        archive: path of the zip.

    Raises:
        InputError: it is no zip, holds too much, or names places outside of it.
    """

    def __init__(self, archive: Path) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="vosformer-")
        folder = Path(self._folder.name)
        try:
            with zipfile.ZipFile(archive) as packed:
                items = [item for item in packed.infolist() if not item.is_dir()]
                room = min(_MOST_BYTES, shutil.disk_usage(folder).free // 2)
                if len(items) > _MOST_FILES or sum(item.file_size for item in items) > room:
                    raise InputError(f"{archive.name} holds {len(items)} files, too many or too large to be unpacked")
                for item in items:
                    self._extract(packed, item, archive, folder)
        except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
            raise InputError(f"{archive.name} is no zip that can be read: {error}") from error
        inside = [item for item in folder.iterdir() if item.name != "__MACOSX"]
        if not inside:
            raise InputError(f"{archive.name} is an empty zip")
        self.path = inside[0] if len(inside) == 1 else folder

    @staticmethod
    def _extract(packed: zipfile.ZipFile, item: zipfile.ZipInfo, archive: Path, folder: Path) -> None:
        parts = PurePosixPath(item.filename).parts
        if not parts or ".." in parts or item.filename.startswith("/") or ":" in item.filename or "\\" in item.filename:
            raise InputError(f"{archive.name} names a place outside of it ({item.filename[:80]!r})")
        packed.extract(item, folder)
