"""Objects that a user knows to be absent, and masks that speak for all objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dummy_models import ColorModel, flat_clip
from hypothesis import given
from hypothesis import strategies as st

from vosformer import formats
from vosformer.cli import main
from vosformer.cli.prompting import Marks, given_masks
from vosformer.errors import InputError
from vosformer.formats import LabeledFrame, LabeledVideo
from vosformer.formats.outputs import place_of
from vosformer.inference.absence import Absence, Absences, parse_absences, read_absences
from vosformer.inference.session import Session
from vosformer.inference.tracking import track
from vosformer.io import (
    LabelImages,
    MaskFolder,
    ObjectImages,
    ScoresFile,
    open_source,
    read_labels,
    read_masks,
    write_bytes,
    write_picture,
)
from vosformer.io.sinks import indexed_png

FRAMES = 10
IMAGES, LABELS = flat_clip((1, 2), FRAMES, (65, 97))


def areas(out: Path, number: int) -> list[bool]:
    """Whether the object has pixels, frame by frame."""
    return [bool((read_labels(out / f"{n:05d}.png", allow_empty=True).labels == number).any()) for n in range(FRAMES)]


def run(out: Path, masks, **options):
    sinks = [LabelImages(out / "masks"), ObjectImages(out / "objects"), ScoresFile(out / "scores.csv")]
    return track(open_source(np.stack(IMAGES)), masks, Session(ColorModel()), sinks, **options)


def mask_folder(path: Path, masks: dict[int, np.ndarray]) -> Path:
    path.mkdir(parents=True)
    for number, labels in masks.items():
        write_bytes(path / f"{number:05d}.png", indexed_png(labels))
    return path


def test_an_object_is_absent_where_the_user_says_so(tmp_path: Path) -> None:
    run(tmp_path, {0: LABELS[0]}, absent=parse_absences(["2:4-6"]))
    assert areas(tmp_path / "masks", 1) == [True] * 10
    assert areas(tmp_path / "masks", 2)[:7] == [n < 4 for n in range(7)]
    assert len(list((tmp_path / "objects" / "2").iterdir())) == FRAMES
    assert "2" in (tmp_path / "scores.csv").read_text()


def test_an_object_that_really_left_comes_back_after_its_absence(tmp_path: Path) -> None:
    gone = flat_clip((1,), FRAMES, (65, 97))[0]
    images = [gone[n] if 4 <= n <= 6 else IMAGES[n] for n in range(FRAMES)]
    session, folder = Session(ColorModel()), LabelImages(tmp_path)
    track(open_source(np.stack(images)), {0: LABELS[0]}, session, [folder], absent=parse_absences(["2:4-6"]))
    assert areas(tmp_path, 2) == [n not in (4, 5, 6) for n in range(10)]


@pytest.mark.parametrize("text", ["2:6-", "2:6-100"])
def test_an_object_ends(tmp_path: Path, text: str) -> None:
    run(tmp_path, {0: LABELS[0]}, absent=parse_absences([text]))
    assert areas(tmp_path / "masks", 2) == [n < 6 for n in range(10)]
    assert areas(tmp_path / "masks", 1) == [True] * 10
    assert len(list((tmp_path / "objects" / "2").iterdir())) == FRAMES


def test_all_objects_end_and_a_mask_brings_one_back(tmp_path: Path) -> None:
    run(tmp_path, {0: LABELS[0], 8: np.where(LABELS[8] == 1, 1, 0)}, absent=parse_absences(["all:5-"]))
    assert areas(tmp_path / "masks", 2) == [n < 5 for n in range(10)]
    assert areas(tmp_path / "masks", 1) == [n < 5 or n == 8 for n in range(10)]


@pytest.mark.parametrize("direction", ["forward", "backward", "both"])
def test_exact_masks_speak_for_all_objects(tmp_path: Path, direction: str) -> None:
    at = {"forward": (0, 6), "backward": (9, 3), "both": (0, 6)}[direction]
    folder = mask_folder(tmp_path / "m", {at[0]: LABELS[at[0]], at[1]: np.where(LABELS[at[1]] == 2, 0, LABELS[at[1]])})
    masks = read_masks(folder, open_source(np.stack(IMAGES)))
    run(tmp_path / "plain", masks, direction=direction)
    assert areas(tmp_path / "plain" / "masks", 2) == [True] * 10
    run(tmp_path / "exact", masks, direction=direction, exact=True)
    there = [n > 3 for n in range(10)] if direction == "backward" else [n < 6 for n in range(10)]
    assert areas(tmp_path / "exact" / "masks", 2) == there
    assert areas(tmp_path / "exact" / "masks", 1) == [True] * 10


def test_an_exact_empty_mask_says_that_nothing_is_there(tmp_path: Path) -> None:
    empty = np.zeros_like(LABELS[0])
    masks = read_masks(mask_folder(tmp_path / "m", {0: LABELS[0], 4: empty, 7: LABELS[7]}), open_source(np.stack(IMAGES)))
    assert "with --exact" in "".join(masks.notes)
    run(tmp_path, masks, exact=True)
    assert areas(tmp_path / "masks", 1) == areas(tmp_path / "masks", 2) == [not 4 <= n < 7 for n in range(10)]


def test_an_exact_empty_mask_of_a_folder_counts_on_the_command_line(tmp_path: Path) -> None:
    empty = np.zeros_like(LABELS[0])
    folder = mask_folder(tmp_path / "m", {0: LABELS[0], 4: empty, 7: LABELS[7]})
    source = open_source(np.stack(IMAGES))
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(source.frames()):
        write_picture(tmp_path / "clip" / f"{number:05d}.png", frame.image)
    command = [
        "track",
        str(tmp_path / "clip"),
        "--mask",
        str(folder),
        "-o",
        str(tmp_path / "out"),
        "--outputs",
        "masks",
        "--exact",
    ]
    assert main([*command, "--model", "default-fast", "--size", "64", "--device", "cpu"]) == 0
    assert areas(tmp_path / "out" / "masks", 1)[4:7] == [False] * 3


def test_a_run_that_was_interrupted_goes_on_with_its_absences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vosformer.inference.tracking.CHECKPOINT_FRAMES", 3)
    options = {"absent": parse_absences(["2:4-5", "1:7-"])}
    run(tmp_path / "straight", {0: LABELS[0]}, **options)

    class StopError(Exception):
        pass

    def stop(done: int, total: int | None) -> None:
        if done == 8:
            raise StopError

    with pytest.raises(StopError):
        run(tmp_path / "cut", {0: LABELS[0]}, **options, state=tmp_path / "state", progress=stop)
    with pytest.raises(InputError, match="other settings"):
        run(tmp_path / "cut", {0: LABELS[0]}, state=tmp_path / "state", resume=True)
    run(tmp_path / "cut", {0: LABELS[0]}, **options, state=tmp_path / "state", resume=True)
    for number in (1, 2):
        assert areas(tmp_path / "cut" / "masks", number) == areas(tmp_path / "straight" / "masks", number)
    assert (tmp_path / "cut" / "scores.csv").read_bytes() == (tmp_path / "straight" / "scores.csv").read_bytes()


def test_absences_are_read(tmp_path: Path) -> None:
    wanted = (Absence(7, 40, 55), Absence(7, 80, None), Absence(None, 9, 9))
    assert parse_absences(["7:40-55,80-", "all:9"]) == wanted
    path = tmp_path / "absent.json"
    path.write_text(json.dumps({"7": [[40, 55], [80, None]], "all": "9"}))
    assert read_absences(path) == wanted == parse_absences([str(path)])
    for text in ("7", "7:", "x:3", "7:5-3", "0:3", "7:-3", "7:1.5"):
        with pytest.raises(InputError, match="expected OBJECT:FIRST-LAST"):
            parse_absences([text])
    for text in ("", "[]", "{", '{"7": {"a": 1}}', '{"7": [[1, 2, 3]]}'):
        path.write_text(text)
        with pytest.raises(InputError, match=r"absent\.json|absence"):
            read_absences(path)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 9), st.integers(0, 9)), max_size=5), st.integers(0, 9))
def test_absences_are_what_their_ranges_say(ranges: list[tuple[int, int, int]], number: int) -> None:
    known = [Absence(i, min(a, b), max(a, b)) for i, a, b in ranges]
    found = Absences(known).absent(number, {1, 2, 3})
    assert found == {i for i, a, b in ranges if min(a, b) <= number <= max(a, b)}


@pytest.mark.parametrize("form", ["coco", "ytvis", "burst", "datumaro", "sav", "labelme", "cvat-images"])
def test_empty_frames_of_an_annotation_file_count_as_exact_masks(tmp_path: Path, form: str) -> None:
    source = open_source(np.stack(IMAGES))
    shown = {0: LABELS[0], 4: np.zeros_like(LABELS[0]), 7: LABELS[7]}
    frames = [LabeledFrame.of_labels(n, f"{n:05d}", labels) for n, labels in shown.items()]
    path = tmp_path / place_of(form)
    formats.write(LabeledVideo.of("clip", frames, size=LABELS[0].shape, length=FRAMES), path, form)
    masks = formats.read_masks(path, source)
    assert 4 in masks.empty
    assert "with --exact they say that nothing is there" in "".join(masks.notes)
    run(tmp_path / "plain", masks)
    assert areas(tmp_path / "plain" / "masks", 1)[4:7] == [True] * 3
    run(tmp_path / "out", masks, exact=True)
    assert areas(tmp_path / "out" / "masks", 1)[4:7] == [False] * 3
    assert areas(tmp_path / "out" / "masks", 2)[7]


def test_empty_masks_count_beside_marks_of_the_command_line(tmp_path: Path) -> None:
    """A box on frame 2 says that both objects are there; the folder says that nothing is on frame 4."""
    source = open_source(np.stack(IMAGES))
    folder = mask_folder(tmp_path / "m", {0: LABELS[0], 4: np.zeros_like(LABELS[0]), 7: LABELS[7]})
    y, x = np.nonzero(LABELS[2] == 2)
    box = f"2:{x.min()},{y.min()},{x.max() + 1},{y.max() + 1}"
    given = given_masks(source, folder, 2, Marks(box=(box,)))
    assert isinstance(given.labels, MaskFolder)
    assert given.labels.empty == (4,)
    assert list(given.labels) == [0, 2, 7]
    run(tmp_path, given.labels, exact=True)
    assert areas(tmp_path / "masks", 2)[:8] == [n < 4 or n == 7 for n in range(8)]
    assert not areas(tmp_path / "masks", 1)[2], "the mask of frame 2 is the box alone, and it speaks for all objects"


def test_a_mark_on_the_frame_of_an_empty_mask_wins(tmp_path: Path) -> None:
    folder = mask_folder(tmp_path / "m", {0: LABELS[0], 4: np.zeros_like(LABELS[0])})
    given = given_masks(open_source(np.stack(IMAGES)), folder, 4, Marks(polygon=("1:5,5,20,5,20,20,5,20",)))
    assert given.labels.empty == ()
    assert list(given.labels) == [0, 4]
