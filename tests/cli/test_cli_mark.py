"""`vosformer mark` and `vosformer track --point`, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from dummy_models import flat_clip
from PIL import Image
from test_cli import fails, weights  # noqa: F401

from vosformer.cli import main
from vosformer.io import indexed_png, read_labels


@pytest.fixture
def clip(tmp_path) -> Path:
    images, labels = flat_clip((1, 2), 4, size=(66, 98))
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "frames" / f"{number:05d}.png")
    (tmp_path / "mask.png").write_bytes(indexed_png(labels[0]))
    return tmp_path


def box_of(path: Path, i: int) -> str:
    rows, columns = np.nonzero(read_labels(path).labels == i)
    return f"{columns.min() - 2},{rows.min() - 2},{columns.max() + 3},{rows.max() + 3}"


def test_boxes_of_two_objects_become_a_label_image(clip, capsys):
    truth = read_labels(clip / "mask.png").labels
    boxes = [f"7:{box_of(clip / 'mask.png', 1)}", f"9:{box_of(clip / 'mask.png', 2)}"]
    out = clip / "first.png"
    words = ["mark", str(clip / "frames"), "--box", boxes[0], "--box", boxes[1], "--classical", "-o", str(out)]
    assert main(words) == 0
    found = read_labels(out).labels
    for i, old in ((7, 1), (9, 2)):
        assert ((found == i) & (truth == old)).sum() > 0.8 * ((found == i) | (truth == old)).sum()
    said = " ".join(capsys.readouterr().err.split())
    assert "object 7:" in said
    assert f"vosformer track {clip / 'frames'} --mask {out}" in said


def test_a_click_repairs_one_object_of_a_mask_and_leaves_the_others(clip):
    old = read_labels(clip / "mask.png").labels
    rows, columns = np.nonzero(old == 1)
    x, y = int(columns[0]), int(rows[0])
    out = clip / "fixed.png"
    words = [
        "mark",
        str(clip / "frames"),
        "--mask",
        str(clip / "mask.png"),
        "--not",
        f"1:{x},{y}",
        "--classical",
        "-o",
        str(out),
    ]
    assert main(words) == 0
    new = read_labels(out).labels
    assert new[y, x] == 0
    assert ((new == 2) == (old == 2)).all()
    assert ((new == 1) <= (old == 1)).all()


def test_polygons_are_filled(clip):
    out = clip / "drawn.png"
    corners = "5:10,10,29,10,29,19,10,19"
    assert main(["mark", str(clip / "frames"), "-n", "2", "--polygon", corners, "-o", str(out)]) == 0
    assert (read_labels(out).labels == 5).sum() == 200


@pytest.mark.parametrize("first", ["9", "5"])
def test_pixels_of_two_objects_go_to_the_one_that_is_named_later(clip, capsys, first):
    out = clip / "drawn.png"
    big, small = "9:10,10,29,10,29,19,10,19", "5:12,12,20,12,20,16,12,16"
    # Different flags: the place of the point says when object 9, or 5, is named.
    orders = {"9": ["--point", "9:11,11", "--polygon", small, big], "5": ["--point", "5:12,12", "--polygon", big, small]}
    assert main(["mark", str(clip / "frames"), *orders[first], "-o", str(out), "--classical"]) == 0
    labels = read_labels(out).labels
    assert labels[14, 15] == (5 if first == "9" else 9)
    assert f"they go to {5 if first == '9' else 9}, which was marked later" in " ".join(capsys.readouterr().err.split())


def test_scribbles_mark_an_object(clip):
    truth = read_labels(clip / "mask.png").labels == 1
    rows, columns = np.nonzero(truth)
    y, left, right = int(rows.mean()), int(columns.min()) + 3, int(columns.max()) - 3
    out = clip / "drawn.png"
    beside = f"4:{max(0, left - 12)},2,{right},2"
    words = ["--scribble", f"4:{left},{y},{right},{y}", "--not-scribble", beside, "--classical", "-o", str(out)]
    assert main(["mark", str(clip / "frames"), *words]) == 0
    found = read_labels(out).labels == 4
    assert (found & truth).sum() > 0.6 * (found | truth).sum()


def test_track_begins_with_a_box(clip, weights):  # noqa: F811
    words = [
        "track",
        str(clip / "frames"),
        "--polygon",
        "5:10,10,29,10,29,19,10,19",
        "--outputs",
        "masks",
        "-o",
        str(clip / "out"),
    ]
    tiny = ["--model", "aot-t", "--weights", str(weights), "--device", "cpu", "--dtype", "fp32", "--size", "64"]
    assert main([*words, *tiny]) == 0
    masks = sorted((clip / "out/masks").glob("*.png"))
    assert len(masks) == 4
    assert (read_labels(masks[0]).labels == 5).sum() == 200
    # Beside a mask of the same frame: the prompted object is where its prompt says.
    more = ["--mask", str(clip / "mask.png"), "-o", str(clip / "more")]
    assert main([*words[:-2], *more, *tiny]) == 0
    assert read_labels(clip / "more/masks/00000.png").ids == (1, 2, 5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing is marked"),
        (["--point", "7:320"], "expected ID:X,Y"),
        (["--point", "seven:3,3"], "expected ID:X,Y"),
        (["--point", "7:500,3"], "object 7: the point (500, 3) is outside of the frame of 98 x 66"),
        (["--not", "7:5,5"], "only where the object is not"),
        (["--box", "7:1,2,3"], "expected ID:X0,Y0,X1,Y1"),
        (["--box", "1,2,9,9", "--box", "1:3,3,8,8"], "has a box already"),
        (["--polygon", "7:1,2,3,4"], "expected ID:X,Y,X,Y,X,Y"),
        (["--polygon", "300:1,1,9,1,9,9"], "the id 300 does not fit"),
        (["--polygon", "0:1,1,9,1,9,9"], "ids are whole numbers other than 0"),
        (["--scribble", "7:1,2"], "expected ID:X,Y,X,Y"),
        (["--scribble", "7:1,2,500,2"], "outside of the frame of 98 x 66"),
        (["--not-scribble", "7:1,2,9,2"], "only where the object is not"),
        (["-n", "9", "--point", "3,3"], "9"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(clip, capsys, words, message):
    out = clip / "first.png"
    assert message in fails(capsys, "mark", str(clip / "frames"), "-o", str(out), "--classical", *words)
    assert not out.exists()


def test_outputs_that_would_be_lost_are_refused(clip, capsys):
    assert "written as .png" in fails(capsys, "mark", str(clip / "frames"), "--point", "3,3", "-o", str(clip / "m.jpg"))
    inside = str(clip / "frames/x.png")
    assert "part of the video" in fails(capsys, "mark", str(clip / "frames"), "--point", "3,3", "-o", inside)
    assert "nothing is marked" in fails(capsys, "track", str(clip / "frames"), "-o", str(clip / "out"))
