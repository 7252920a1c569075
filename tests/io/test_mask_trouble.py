"""Masks as other tools save them: void, colors, cut-outs, archives of arrays."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vosformer import formats
from vosformer.errors import InputError
from vosformer.io import DAVIS_PALETTE, indexed_png, open_source, read_labels, read_masks

CASES = Path(__file__).parents[1] / "fixtures" / "cases"
LABELS = np.zeros((40, 60), np.int32)
LABELS[5:20, 5:20] = 1
LABELS[10:35, 30:50] = 2
BORDER = LABELS.copy()
BORDER[4:21, 4:6], BORDER[9:11, 28:52] = 255, 255
RED_GREEN = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)[LABELS]


def save(path: Path, pixels: np.ndarray, **options) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.fromarray(pixels).save(path, **options)
    return path


def test_void_of_the_case_is_left_out_with_a_note() -> None:
    found = read_labels(CASES / "voc.png")
    assert found.ids == (1, 2)
    assert np.array_equal(found.labels, np.where(np.asarray(Image.open(CASES / "voc.png")) == 255, 0, found.labels))
    assert "taken for void" in found.notes[0]


@pytest.mark.parametrize("kind", ["indexed", "own palette", "gray", "painted", "tiff"])
def test_void_in_every_kind_of_label_map(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("m.tif" if kind == "tiff" else "m.png")
    if kind == "indexed":
        image = Image.fromarray(BORDER.astype(np.uint8))
        image.putpalette(DAVIS_PALETTE.tobytes())
        image.save(path)
    elif kind == "own palette":
        palette = np.full((256, 3), 200, np.uint8)
        palette[:3] = [[0, 0, 0], [250, 0, 0], [0, 250, 0]]
        image = Image.fromarray(BORDER.astype(np.uint8))
        image.putpalette(palette.tobytes())
        image.save(path)
    else:
        save(path, DAVIS_PALETTE[BORDER] if kind == "painted" else BORDER.astype(np.uint8))
    found = read_labels(path)
    assert found.ids == (1, 2)
    assert np.array_equal(found.labels, np.where(BORDER == 255, 0, BORDER))
    assert f"255 on {(BORDER == 255).sum()} pixels, beside the ids 1, 2" in found.notes[0]


def test_255_is_an_object_where_it_can_only_be_one(tmp_path: Path) -> None:
    np.save(tmp_path / "m.npy", BORDER)
    assert read_labels(tmp_path / "m.npy").ids == (1, 2, 255)
    path = tmp_path / "m.png"
    path.write_bytes(indexed_png(np.where(LABELS > 0, LABELS + 253, 0)))
    assert read_labels(path).ids == (254, 255)
    path.write_bytes(indexed_png(BORDER))  # what vosformer wrote itself
    assert read_labels(path).ids == (1, 2, 255)
    save(path, np.where(LABELS > 0, 255, 0).astype(np.uint8))
    assert read_labels(path).ids == (1,)


@pytest.mark.parametrize(
    "legend",
    [
        ("legend.json", json.dumps({"5": [255, 0, 0], "7": "#00ff00"})),
        ("colors.json", json.dumps({"#ff0000": 5, "0,255,0": 7})),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:255,0,0::\ndog:0,255,0::\n"),
    ],
)
@pytest.mark.parametrize("above", [False, True])
def test_a_legend_tells_the_ids_of_colors(tmp_path: Path, legend: tuple[str, str], above: bool) -> None:
    name, text = legend
    path = save(tmp_path / "masks" / "m.png", RED_GREEN)
    (tmp_path / ("" if above else "masks") / name).write_text(text)
    ids = (1, 2) if name == "labelmap.txt" else (5, 7)
    found = read_labels(path)
    assert found.ids == ids
    assert np.array_equal(found.labels == ids[1], LABELS == 2)
    assert name in found.notes[0]
    blue = RED_GREEN.copy()
    blue[0, 0] = (0, 0, 255)
    with pytest.raises(InputError, match=r"\(0, 0, 255\) on 1 pixels\), which are not in"):
        read_labels(save(path, blue))


def test_broken_legends_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", RED_GREEN)
    for text in ("", "[]", '{"1": [255, 0]}', '{"1": "red"}', '{"1": [256, 0, 0]}', '{"1": "#ff0000", "2": "#ff0000"}'):
        (tmp_path / "legend.json").write_text(text)
        with pytest.raises(InputError, match=r"legend\.json"):
            read_labels(path)


def test_colors_of_a_single_mask_are_numbered_with_a_note(tmp_path: Path) -> None:
    source = open_source(np.zeros((3, 40, 60, 3), np.uint8))
    masks = read_masks(save(tmp_path / "m.png", RED_GREEN), source)
    assert np.array_equal(masks[0].labels, LABELS)
    assert "1 = (255, 0, 0), 2 = (0, 255, 0), background = (0, 0, 0)" in masks.notes[0]
    gray_ground = np.where((LABELS == 0)[..., None], np.uint8(90), RED_GREEN)
    assert np.array_equal(read_masks(save(tmp_path / "m.png", gray_ground), source)[0].labels, LABELS)
    with pytest.raises(InputError, match=r"not in the DAVIS palette.*legend\.json"):
        read_labels(tmp_path / "m.png")


@pytest.mark.parametrize("soft", [False, True])
def test_a_cut_out_is_one_object(tmp_path: Path, soft: bool) -> None:
    rng = np.random.default_rng(0)
    alpha = np.where(LABELS == 2, 255, 0).astype(np.uint8)
    if soft:
        alpha[10:35, 29], alpha[10:35, 50] = 90, 200
    rgba = np.dstack([rng.integers(0, 256, (40, 60, 3)).astype(np.uint8), alpha])
    found = read_labels(save(tmp_path / "m.png", rgba))
    assert np.array_equal(found.labels, (alpha >= 128).astype(int))
    assert "cut-out" in found.notes[0]
    assert ("soft edge of 50 pixels" in found.notes[0]) == soft


def test_archives_of_arrays(tmp_path: Path) -> None:
    path = tmp_path / "m.npz"
    np.savez_compressed(path, LABELS)
    assert np.array_equal(read_labels(path).labels, LABELS)
    np.savez(path, image=np.zeros((40, 60, 3), np.float32), masks=LABELS.astype(np.uint8))
    found = read_labels(path)
    assert np.array_equal(found.labels, LABELS)
    assert "'masks' was read" in found.notes[0]
    np.savez(path, np.stack([LABELS == 1, LABELS == 2]))
    assert np.array_equal(read_labels(path).labels, LABELS)
    np.savez(path, a=LABELS, b=LABELS)
    with pytest.raises(InputError, match=r"holds a int32\[40, 60\], b int32\[40, 60\]: expected one array"):
        read_labels(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"no \.npz archive"):
        read_labels(path)


def test_headers_that_promise_more_than_there_is(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<i4", "fortran_order": False, "shape": (10**6, 10**6)})
    (tmp_path / "m.npy").write_bytes(buffer.getvalue() + b"1234")
    with pytest.raises(InputError, match=r"its header says int32\[1000000, 1000000\]"):
        read_labels(tmp_path / "m.npy")
    with zipfile.ZipFile(tmp_path / "m.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", buffer.getvalue() + bytes(1000))
    with pytest.raises(InputError, match="its header says"):
        read_labels(tmp_path / "m.npz")


def test_masks_numbered_from_0(tmp_path: Path) -> None:
    for number in (1, 2):
        save(tmp_path / "sam" / f"{number - 1}.png", np.where(number == LABELS, 255, 0).astype(np.uint8))
    found = read_labels(tmp_path / "sam")
    assert np.array_equal(found.labels, LABELS)
    assert "0.png is object 1" in found.notes[0]


def test_what_is_no_mask_gets_told_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_text("hello")
    with pytest.raises(InputError, match=r"expected a label map: an indexed PNG.*legend.*\.npy"):
        read_labels(tmp_path / "m.png")


COLORS = np.array([[10, 20, 30], [200, 30, 40], [30, 160, 220], [240, 230, 20]], np.uint8)


def colored_folder(folder: Path, frames: list[np.ndarray]) -> Path:
    for number, labels in enumerate(frames):
        save(folder / f"{number:05d}.png", COLORS[labels])
    return folder


def test_a_folder_of_colored_masks_numbers_a_color_once(tmp_path: Path) -> None:
    """The second mask shows its colors in another order, and one more; the ground is the color of the border."""
    second = np.where(LABELS == 2, 2, 0)
    second[0:4, 20:30] = 3
    folder = colored_folder(tmp_path / "m", [LABELS, second, np.where(LABELS == 1, 1, 0)])
    masks = read_masks(folder, open_source(np.zeros((3, *LABELS.shape, 3), np.uint8)))
    assert [masks[n].ids for n in masks] == [(1, 2), (2, 3), (1,)]
    assert np.array_equal(masks[1].labels, second)
    assert "3 = (240, 230, 20)" in "".join(masks.notes)
    assert np.array_equal(masks[0].labels, LABELS), "the same in any order of reading"
    found = formats.read(folder)
    assert [tuple(frame.masks) for frame in found.frames] == [(1, 2), (2, 3), (1,)]


def test_a_folder_is_numbered_as_a_whole_where_one_color_is_unknown(tmp_path: Path) -> None:
    """The first mask has colors of the DAVIS palette only, but as the second one tells they are no places in it."""
    save(tmp_path / "m" / "00000.png", DAVIS_PALETTE[np.where(LABELS == 1, 5, 0)])
    save(
        tmp_path / "m" / "00001.png", np.where((LABELS == 2)[..., None], COLORS[2], DAVIS_PALETTE[np.where(LABELS == 1, 5, 0)])
    )
    masks = read_masks(tmp_path / "m", open_source(np.zeros((2, *LABELS.shape, 3), np.uint8)))
    assert [masks[n].ids for n in masks] == [(1,), (1, 2)]


@pytest.mark.parametrize("kind", ["color", "indexed", "gray", "folder"])
def test_a_legend_that_is_given_says_what_colors_stand_for(tmp_path: Path, kind: str) -> None:
    (tmp_path / "l").mkdir()
    legend = tmp_path / "l" / "mine.json"
    known = {"0": COLORS[0].tolist(), "7": "#c81e28", "4": COLORS[2].tolist()}
    path = tmp_path / "m.png"
    if kind == "folder":
        path = colored_folder(tmp_path / "m", [LABELS, LABELS])
    elif kind == "indexed":
        image = Image.fromarray(LABELS.astype(np.uint8))
        image.putpalette(COLORS.tobytes())
        image.save(path)
    elif kind == "gray":
        save(path, np.array([0, 100, 200], np.uint8)[LABELS])
        known = {"7": [100, 100, 100], "4": "#c8c8c8"}
    else:
        save(path, COLORS[LABELS])
    legend.write_text(json.dumps(known))
    masks = read_masks(path, open_source(np.zeros((2, *LABELS.shape, 3), np.uint8)), legend=legend)
    assert np.array_equal(masks[0].labels, np.array([0, 7, 4])[LABELS])
    assert "mine.json" in "".join(masks.notes)


def test_a_legend_without_one_of_the_colors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.json").write_text(json.dumps({"1": COLORS[1].tolist(), "0": COLORS[0].tolist()}))
    save(tmp_path / "m.png", COLORS[LABELS])
    with pytest.raises(InputError, match=r"30, 160, 220.*which are not in .*l\.json"):
        read_masks(tmp_path / "m.png", open_source(np.zeros((1, *LABELS.shape, 3), np.uint8)), legend=tmp_path / "l.json")


def test_colors_on_a_transparent_ground_say_what_the_alpha_was_taken_for(tmp_path: Path) -> None:
    """Case 14: two flat colors, all else transparent, may be a label map or a cut-out."""
    alpha = np.where(LABELS > 0, 255, 0).astype(np.uint8)
    path = save(tmp_path / "m.png", np.dstack([COLORS[LABELS], alpha]))
    masks = read_masks(path, open_source(np.zeros((1, *LABELS.shape, 3), np.uint8)))
    assert np.array_equal(masks[0].labels, LABELS)
    assert "transparent (alpha 0) is background" in "".join(masks.notes)
