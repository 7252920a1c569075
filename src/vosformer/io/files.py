"""Files that are either whole or not there, and errors of the disk in the user's words."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vosformer.errors import OutputError

_MARK_BYTES = 1 << 20

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would be larger than this system allows",
    errno.EACCES: "there is no permission to write there",
    errno.EPERM: "there is no permission to write there",
    errno.EROFS: "the disk is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a file of that name is in the way",
    errno.ENAMETOOLONG: "the name is too long",
}


def reason(error: OSError) -> str:
    """Return what went wrong with a file, in plain words."""
    return _REASONS.get(error.errno or 0, error.strerror or str(error) or type(error).__name__)


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Raise an `OutputError` that names `path` for every `OSError` inside."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {reason(error)}") from error


def make_folder(path: Path) -> Path:
    """Create the folder and its parents; return it.

    Raises:
        OutputError: it cannot be created.
    """
    with output_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path in the same folder that takes the place of `path` if the block succeeds, and vanishes if not.

    The name is the same each time, so that what a killed run left behind is overwritten by the next one. The suffix is kept, since
    writers of video choose their format by it.

    Args:
        path: the file.
        durable: it is on the disk when the block ends, and not only handed to the system: for files that took hours to make.

    Raises:
        OutputError: an `OSError` came up inside.
    """
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        with output_errors(path):
            yield temporary
            if durable:
                flush(temporary)
            os.replace(temporary, path)
            temporary.unlink(missing_ok=True)  # it is still there where both names were links to one content
            if durable:
                flush(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder (where the system has that), are on the disk.

    Raises:
        OSError: the disk is full, or broken.
    """
    if path.is_dir() and os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def file_mark(path: Path, more: str = "") -> str:
    """Hash the size of a file, its first and last megabyte, and further text: cheap, and changes with nearly every change."""
    size = path.stat().st_size
    digest = hashlib.sha256(f"{size} {more}".encode())
    with path.open("rb") as file:
        digest.update(file.read(_MARK_BYTES))
        file.seek(max(0, size - _MARK_BYTES))
        digest.update(file.read(_MARK_BYTES))
    return digest.hexdigest()


@contextmanager
def replacing_folder(path: Path, durable: bool = False) -> Iterator[Path]:
    """Yield the path of a folder to create beside `path` that takes its place if the block succeeds, and vanishes if not.

    What was at `path` is only removed when the new folder is there.

    Args:
        path: the folder.
        durable: see `replacing`.

    Raises:
        OutputError: an `OSError` came up inside.
    """
    temporary, former = path.with_name(f".tmp-{path.name}"), path.with_name(f".old-{path.name}")
    try:
        with output_errors(path):
            for left in (temporary, former):  # by a killed run
                remove(left)
            temporary.mkdir(parents=True)
            yield temporary
            for written in (*temporary.rglob("*"), temporary) if durable else ():
                flush(written)
            if path.exists():
                os.replace(path, former)
            os.replace(temporary, path)
            if durable:
                flush(path.parent)
            remove(former)
    except BaseException:
        with suppress(OSError, OutputError):
            if former.exists() and not path.exists():
                os.replace(former, path)
            remove(temporary)
        raise


@contextmanager
def taking_turns(path: Path) -> Iterator[None]:
    """Wait until no other process is in such a block with the same lock file, be it on another machine that shares the folder.

    A process that is killed inside lets the next one in.

    Raises:
        OutputError: the lock file cannot be written.
    """
    with output_errors(path):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with output_errors(path):
            _lock(file)
        yield
    finally:
        os.close(file)


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        msvcrt.locking(file, msvcrt.LK_LOCK, 1)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX)


def set_aside(folder: Path, pattern: str) -> tuple[str, ...]:
    """Move the files of a former run from a folder to one beside it, `NAME.old-1` (or -2, ...); folders left empty are removed.

    Returns:
        What to say about it; empty if there were none.

    Raises:
        OutputError: they cannot be moved.
    """
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not files:
        return ()
    number = 1
    while (target := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    with output_errors(target):
        for file in files:
            new = target / file.relative_to(folder)
            new.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, new)
        for parent in {file.parent for file in files} - {folder}:
            with suppress(OSError):
                parent.rmdir()
    return (f"{folder} held {len(files)} files of a former run: they are in {target.name} now",)


def write_bytes(path: Path, data: bytes) -> None:
    """Write the whole file or nothing.

    Raises:
        OutputError: it cannot be written; a former file of that name is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, content: object) -> None:
    """Write a value as indented JSON with a line's end, the whole file or nothing.

    Raises:
        OutputError: it cannot be written; a former file of that name is untouched.
    """
    # Names of files may hold bytes that are no UTF-8.
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape"))


def remove(path: Path) -> None:
    """Delete a file or folder if it is there."""
    with output_errors(path):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
