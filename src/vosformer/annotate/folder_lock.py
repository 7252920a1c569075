"""One program at a time in a project's folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from vosformer.errors import InputError
from vosformer.io.files import make_folder, output_errors


class FolderLock:
    """Holds a lock file until it is released or the process ends, however it ends.

    Args:
        path: of the lock file.

    Raises:
        InputError: another program holds it; the message says which.
    """

    def __init__(self, path: Path) -> None:
        make_folder(path.parent)
        with output_errors(path):
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._file)
        except OSError:
            holder = os.read(self._file, 200).decode(errors="replace").strip()
            os.close(self._file)
            raise InputError(
                f"{path.parent.parent} is open in another annotator ({holder or 'a process that just started'}): close that one first"
            ) from None
        self.say(f"process {os.getpid()}")

    def say(self, text: str) -> None:
        """Set what the message to others says about who holds it."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, text.encode(), 0) if hasattr(os, "pwrite") else os.write(self._file, text.encode())

    def release(self) -> None:
        """Let others in."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
