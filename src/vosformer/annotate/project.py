"""A project is a folder: `project.json`, `given/00042.png`, `masks/00042.png`, `scores.csv`. Nothing that was done in it is lost.

Every change goes to the journal first, then to the files; what a killed process did not get to is put right when the folder is
opened again. `vosformer track --mask given/` takes the masks that a user gave as they are.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vosformer.annotate.actions import Action, Labels, LongAction, parts_of, plain, rows_from_json, rows_to_json
from vosformer.annotate.blobs import Blobs
from vosformer.annotate.folder_lock import FolderLock
from vosformer.annotate.journal import ActionRecord, Change, Journal
from vosformer.annotate.label_files import MOST_IDS, labels_png, read_png
from vosformer.annotate.project_file import VERSION, read_about
from vosformer.annotate.records import GivenFrame, Measures, TrackedObject, distinct_color
from vosformer.annotate.scores_file import read_scores, write_scores
from vosformer.errors import InputError
from vosformer.io import Frame, Source, read_labels
from vosformer.io.files import make_folder, write_json


class Project:
    """A project's folder, opened: objects, given frames, masks and numbers, with undo and redo of everything.

    Args:
        folder: of the project; it is created.
        source: the frames.
        video: where the frames come from, kept in `project.json` so that the folder alone can be opened again.
        reading: how they are read, kept there, too: values for JSON.

    Attributes:
        objects: id -> object.
        given: frame number -> what the user says about it.
        measures: numbers of every tracked frame.
        version: counts changes.
        lock: is held while anything changes.

    Raises:
        InputError: the folder is of other frames, broken, or open in another program.
    """

    def __init__(
        self, folder: Path, source: Source, video: str | None = None, reading: Mapping[str, Any] | None = None
    ) -> None:
        if source.live or source.count is None:
            raise InputError(
                f"{source.name} gives its frames once; annotate a file or a folder of images, which can be gone through"
            )
        self.folder, self.source = folder, source
        self.frames: int = source.count
        self.lock = threading.RLock()
        self.objects: dict[int, TrackedObject] = {}
        self.given: dict[int, GivenFrame] = {}
        self.measures = Measures(self.frames)
        self.version = 0
        self._given_png: dict[int, str] = {}
        self._applied = 0
        make_folder(folder)
        self.folder_lock = FolderLock(folder / ".history" / "lock")
        try:
            self._blobs = Blobs(folder / ".history" / "blobs")
            self._bases = Blobs(folder / "bases")  # not part of the history: clicks build on them
            self._about = {**self._video_facts(video), "reading": dict(reading or {})}
            applied = self._load()
            self._journal = Journal(folder / ".history" / "journal.jsonl")
            for key, value in self._journal.after(applied):
                self._apply(key, value)
            self.adopted = self._adopt()
            self._masked = self._find_masks()
            self.checkpoint()
        except BaseException:
            self.folder_lock.release()
            raise

    @property
    def undoable(self) -> str | None:
        """What `undo` would take back."""
        return self._journal.done[-1].what if self._journal.done else None

    @property
    def redoable(self) -> str | None:
        """What `redo` would do again."""
        return self._journal.undone[-1].what if self._journal.undone else None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames."""
        return self.source.height, self.source.width

    def masked(self) -> NDArray[np.bool_]:
        """Which frames have masks, bool [frames]."""
        with self.lock:
            return self._masked.copy()

    def labels(self, frame: int) -> Labels:
        """Return the masks of a frame [H,W]: given and tracked; all zero where there are none."""
        with self.lock:
            path = self.mask_path(frame)
            return read_png(path) if path.exists() else np.zeros(self.size, np.int32)

    def given_labels(self, frame: int) -> Labels:
        """Return the given masks of a frame [H,W]; all zero where there are none."""
        with self.lock:
            path = self.given_path(frame)
            return read_png(path) if frame in self.given and path.exists() else np.zeros(self.size, np.int32)

    def known(self, frame: int) -> set[int]:
        """Return the objects that something is known of on a frame: given or tracked."""
        with self.lock:
            given = self.given.get(frame)
            return {i for i in [*self.measures.at(frame), *(given.ids if given else ())] if i in self.objects}

    def empty_frame(self, frame: int) -> Frame:
        """Return what is known of a frame without decoding it."""
        time = None if self.source.fps is None else float(frame / self.source.fps)
        return Frame(frame, self.source.name_of(frame), None, time)

    def mask_path(self, frame: int) -> Path:
        """Return where the masks of a frame lie."""
        return self.folder / "masks" / f"{self.source.name_of(frame)}.png"

    def given_path(self, frame: int) -> Path:
        """Return where the given masks of a frame lie."""
        return self.folder / "given" / f"{self.source.name_of(frame)}.png"

    def new_object(self, name: str | None = None, category: str = "object", color: str | None = None) -> TrackedObject:
        """Return an object with an id that is free; to be put in with `Action.set_object`.

        Raises:
            InputError: there are 65535 already.
        """
        i = next(i for i in range(1, len(self.objects) + 2) if i not in self.objects)
        if i > MOST_IDS:
            raise InputError(f"there are {len(self.objects)} objects; masks hold ids up to {MOST_IDS}")
        return TrackedObject(i, name or f"object {i}", category, color or distinct_color(i))

    @contextmanager
    def action(self, what: str) -> Iterator[Action]:
        """Gather the changes of one gesture; they are all done at the end of the block, or none if it fails."""
        with self.lock:
            action = Action(self)
            yield action
            changes = [(key, old, new) for key, new in action.changes.items() if (old := self._value(key)) != new]
            if changes:
                self._journal.add(what, changes)
                self._do(changes)
                self._save()

    def begin(self, what: str) -> LongAction:
        """Begin an action whose changes come one by one, each of which stays whatever happens then."""
        with self.lock:
            return LongAction(self, self._journal.begin(what))

    def undo(self) -> str | None:
        """Take the last action back; return what it was, or None if there is none."""
        with self.lock:
            record = self._journal.undo()
            return None if record is None else self._replay(record, backward=True)

    def redo(self) -> str | None:
        """Do the action again that was undone last; return what it was, or None if there is none."""
        with self.lock:
            record = self._journal.redo()
            return None if record is None else self._replay(record, backward=False)

    def checkpoint(self) -> None:
        """Write `scores.csv` and note how far the journal is contained in the files."""
        with self.lock:
            write_scores(self.folder / "scores.csv", self.source, self.measures)
            self._save(self._journal.size)

    def close(self) -> None:
        """Write what is left, and let other programs in."""
        with self.lock:
            self.checkpoint()
            self._journal.close()
            self.folder_lock.release()

    def keep_labels(self, labels: Labels) -> str:
        """Keep label maps [H,W] as PNG; return the name of the content."""
        return self._blobs.add(labels_png(labels))

    def keep_base(self, mask: NDArray[np.bool_]) -> str:
        """Keep a mask [H,W] that clicks repair, as it was before them; return the name of the content."""
        return self._bases.add(labels_png(mask.astype(np.int32)))

    def base(self, name: str) -> NDArray[np.bool_] | None:
        """Return the mask [H,W] that `keep_base` kept under that name; None if somebody removed its file."""
        path = self._bases.path(name)
        return read_png(path) > 0 if path.exists() else None

    def extend(self, record: ActionRecord, key: str, new: Any) -> None:
        """Do one more change of a long action."""
        with self.lock:
            old = self._value(key)
            if old != new:
                self._journal.extend(record, [(key, old, new)])
                self._do([(key, old, new)])

    def end(self, record: ActionRecord) -> None:
        """End a long action."""
        with self.lock:
            self._journal.end(record)
            self.checkpoint()

    def _replay(self, record: ActionRecord, backward: bool) -> str:
        for key, old, new in self._journal.changes(record, backward):
            self._apply(key, old if backward else new)
        self.version += 1
        self.checkpoint()
        return record.what

    def _do(self, changes: list[Change]) -> None:
        for key, _, new in changes:
            self._apply(key, new)
        self.version += 1

    def _value(self, key: str) -> Any:
        """Return what a key is now, as the journal writes it."""
        kind, number = parts_of(key)
        if kind == "object":
            return plain(self.objects[number].to_json()) if number in self.objects else None
        if kind == "given":
            given = self.given.get(number)
            return None if given is None else {**plain(given.to_json()), "png": self._given_png[number]}
        name = self._blobs.name_of(self.mask_path(number))
        return None if name is None else {"png": name, "rows": rows_to_json(self.measures.at(number))}

    def _apply(self, key: str, value: Any) -> None:
        """Make a key so, in memory and in the files; the same again changes nothing."""
        kind, number = parts_of(key)
        if kind == "object":
            if value is None:
                self.objects.pop(number, None)
            else:
                self.objects[number] = TrackedObject.from_json(value)
        elif kind == "given":
            self._blobs.place(None if value is None else value["png"], self.given_path(number))
            if value is None:
                self.given.pop(number, None)
                self._given_png.pop(number, None)
            else:
                self.given[number], self._given_png[number] = GivenFrame.from_json(value), value["png"]
        else:
            self._blobs.place(None if value is None else value["png"], self.mask_path(number))
            self.measures.put(number, {} if value is None else rows_from_json(value["rows"]))
            if hasattr(self, "_masked"):
                self._masked[number] = value is not None

    def _save(self, applied: int | None = None) -> None:
        self._applied = self._applied if applied is None else applied
        about = {
            "vosformer_project": VERSION,
            "video": self._about,
            "objects": [self.objects[i].to_json() for i in sorted(self.objects)],
            "given": {str(n): {**self.given[n].to_json(), "png": self._given_png[n]} for n in sorted(self.given)},
            "applied": self._applied,
        }
        write_json(self.folder / "project.json", about)

    def _load(self) -> int:
        """Read the folder as it was at the last checkpoint; return how far the journal is contained in it."""
        path = self.folder / "project.json"
        if not path.exists():
            return 0
        about = read_about(self.folder)
        was = about["video"]
        if was["fingerprint"] != self._about["fingerprint"]:
            raise InputError(
                f"{self.folder} is a project of {was['path']} ({was['frames']} frames of {was['width']} x {was['height']}), and "
                f"{self.source.name} has other frames: give another folder with -o"
            )
        self.objects = {int(value["id"]): TrackedObject.from_json(value) for value in about["objects"]}
        for key, value in about["given"].items():
            png = self._blobs.name_of(self.given_path(int(key)))
            if png is not None:  # else somebody removed the file, which counts
                self.given[int(key)], self._given_png[int(key)] = GivenFrame.from_json(value), png
        read_scores(self.folder / "scores.csv", self.measures)
        self._applied = int(about["applied"])
        return self._applied

    def _adopt(self) -> list[int]:
        """Take over masks that somebody else put into `given/`; return their frames."""
        found: list[int] = []
        folder = self.folder / "given"
        for path in sorted(folder.glob("*.png")) if folder.exists() else []:
            number = self.source.find(path.stem)
            if number is None or number in self.given:
                continue
            labels = read_labels(path, allow_empty=True).labels
            if labels.shape != self.size or labels.max() > MOST_IDS:
                raise InputError(f"{path} does not fit: expected {self.size[1]} x {self.size[0]} pixels, ids up to {MOST_IDS}")
            ids = tuple(int(i) for i in np.unique(labels) if i)
            if not ids:
                continue
            self.given[number], self._given_png[number] = GivenFrame(ids), self._blobs.add(path.read_bytes())
            for i in ids:
                self.objects.setdefault(i, TrackedObject(i, f"object {i}", color=distinct_color(i)))
            if not self.mask_path(number).exists():
                self._blobs.place(self.keep_labels(labels), self.mask_path(number))
            found.append(number)
        return found

    def _find_masks(self) -> NDArray[np.bool_]:
        masked = np.zeros(self.frames, np.bool_)
        folder = self.folder / "masks"
        for path in folder.iterdir() if folder.exists() else ():
            number = self.source.find(path.stem) if path.suffix == ".png" and not path.name.startswith(".") else None
            if number is not None:
                masked[number] = True
        return masked

    def _video_facts(self, video: str | None) -> dict[str, Any]:
        return {
            "path": str(Path(video).resolve()) if video is not None else self.source.name,
            "fingerprint": self.source.fingerprint(),
            "frames": self.frames,
            "height": self.source.height,
            "width": self.source.width,
            "fps": None if self.source.fps is None else float(self.source.fps),
        }
