from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from vosformer.errors import InputError
from vosformer.io import DAVIS_PALETTE, check_size, indexed_png, open_source, read_labels, read_mask_folder, read_masks
from vosformer.io.palette import colors

LABELS = np.zeros((40, 60), np.int32)
LABELS[5:20, 5:20] = 1
LABELS[10:35, 30:50] = 2
LABELS[30, 2] = 3  # one pixel is an object, too


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def disc(smooth: bool, value: int = 255) -> np.ndarray:
    image = np.zeros((120, 160), np.uint8)
    return cv2.circle(image, (80, 60), 40, value, -1, cv2.LINE_AA if smooth else cv2.LINE_8)


def test_the_davis_palette() -> None:
    # The first and last colors as they stand in the files of DAVIS.
    assert DAVIS_PALETTE[:6].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128]]
    assert DAVIS_PALETTE[255].tolist() == [224, 224, 192]
    assert len(np.unique(DAVIS_PALETTE, axis=0)) == 256
    assert np.array_equal(colors(np.array([1, 256, 511])), DAVIS_PALETTE[[1, 1, 1]])


def test_an_indexed_png_keeps_its_palette(tmp_path: Path) -> None:
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    path = tmp_path / "m.png"
    path.write_bytes(indexed_png(LABELS, palette.tobytes()))
    found = read_labels(path)
    assert np.array_equal(found.labels, LABELS)
    assert found.labels.dtype == np.int32
    assert np.array_equal(found.palette, palette)
    assert found.ids == (1, 2, 3)
    assert found.notes == ()


def test_indexed_pngs_of_few_bits(tmp_path: Path) -> None:
    image = Image.fromarray(LABELS.astype(np.uint8))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "m.png", bits=2)
    assert np.array_equal(read_labels(tmp_path / "m.png").labels, LABELS)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_label_maps(tmp_path: Path, dtype: type) -> None:
    labels = LABELS * (400 if dtype == np.uint16 else 7)
    found = read_labels(save(tmp_path / "m.png", labels.astype(dtype)))
    assert np.array_equal(found.labels, labels)
    assert found.palette is None


@pytest.mark.parametrize("kind", ["gray", "gray16", "bool", "rgb", "rgba", "indexed"])
def test_black_and_white_is_object_1(tmp_path: Path, kind: str) -> None:
    white = np.where(LABELS > 0, 255, 0).astype(np.uint8)
    path = tmp_path / "m.png"
    if kind == "gray16":
        save(path, white.astype(np.uint16) * 257)
    elif kind == "bool":
        Image.fromarray(white).convert("1").save(path)
    elif kind == "rgb":
        save(path, np.dstack([white] * 3))
    elif kind == "rgba":
        save(path, np.dstack([np.full_like(white, 255)] * 3 + [white]))
    elif kind == "indexed":
        path.write_bytes(indexed_png(white, np.arange(256, dtype=np.uint8).repeat(3).tobytes()))
    else:
        save(path, white)
    assert np.array_equal(read_labels(path).labels, LABELS > 0)


def test_id_255_of_the_davis_palette_stays_255(tmp_path: Path) -> None:
    path = tmp_path / "m.png"
    path.write_bytes(indexed_png(np.where(LABELS > 0, 255, 0), DAVIS_PALETTE.tobytes()))
    assert read_labels(path).ids == (255,)


def test_colors_of_the_davis_palette_are_ids(tmp_path: Path) -> None:
    assert np.array_equal(read_labels(save(tmp_path / "m.png", DAVIS_PALETTE[LABELS])).labels, LABELS)


def test_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    labels = LABELS.astype(np.int64) * 70_000
    np.save(tmp_path / "m.npy", labels)
    assert np.array_equal(read_labels(tmp_path / "m.npy").labels, labels)
    np.save(tmp_path / "m.npy", LABELS > 0)
    assert np.array_equal(read_labels(tmp_path / "m.npy").labels, LABELS > 0)
    many = np.arange(1, 301).repeat(4).reshape(30, 40)
    np.save(tmp_path / "m.npy", many)
    assert len(read_labels(tmp_path / "m.npy").ids) == 300


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((4, 4), np.float32), "dtype float32"),
        (np.zeros((4, 4, 3), np.uint8), r"shape \(4, 4, 3\)"),
        (np.array([[-1, 2]]), "ids -1 to 2"),
        (np.array([[0, 2**31]]), "ids 0 to 2147483648"),
        (np.array([[{}]]), "no .npy array"),
    ],
)
def test_arrays_that_are_no_label_maps(tmp_path: Path, array: np.ndarray, match: str) -> None:
    np.save(tmp_path / "m.npy", array, allow_pickle=True)
    with pytest.raises(InputError, match=match):
        read_labels(tmp_path / "m.npy")


def test_soft_masks_are_refused_with_their_values(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", disc(smooth=True))
    with pytest.raises(
        InputError, match=r"m\.png is no label map: it holds \d+ values \(0 on \d+ pixels, 255 on \d+ pixels, .*thin"
    ):
        read_labels(path)
    assert read_labels(save(path, disc(smooth=False))).ids == (1,)


def test_a_single_gray_of_a_smoothed_edge_is_refused(tmp_path: Path) -> None:
    mask = disc(smooth=False)
    edge = cv2.dilate(mask, np.ones((3, 3), np.uint8)) != mask
    with pytest.raises(InputError, match="3 values"):
        read_labels(save(tmp_path / "m.png", np.where(edge, np.uint8(127), mask)))


@pytest.mark.parametrize("value", [1, 2, 38, 200])
def test_resampled_label_maps_are_refused(tmp_path: Path, value: int) -> None:
    labels = np.zeros((60, 80), np.uint8)
    labels[10:40, 10:40] = value
    labels[20:50, 50:70] = 250
    smooth = cv2.resize(cv2.resize(labels, (53, 41), interpolation=cv2.INTER_AREA), (160, 120), interpolation=cv2.INTER_LINEAR)
    with pytest.raises(InputError, match="no label map"):
        read_labels(save(tmp_path / "m.png", smooth))


def test_anti_aliased_palettes_are_refused(tmp_path: Path) -> None:
    red = np.dstack([disc(smooth=True), np.zeros((120, 160, 2), np.uint8)])
    Image.fromarray(red).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "m.png")
    with pytest.raises(InputError, match="no label map"):
        read_labels(tmp_path / "m.png")


def test_many_tiny_objects_are_a_label_map(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    labels = np.zeros((60, 80), np.uint8)
    for number in range(1, 41):
        top, left, side = rng.integers(0, 55), rng.integers(0, 75), rng.integers(1, 9)
        labels[top : top + side, left : left + side] = number
    assert np.array_equal(read_labels(save(tmp_path / "m.png", labels)).labels, labels)


@pytest.mark.parametrize(("name", "form"), [("m.jpg", "JPEG"), ("m.webp", "WEBP"), ("alpha.webp", "WEBP")])
def test_lossy_masks_are_refused(tmp_path: Path, name: str, form: str) -> None:
    # At full quality only a few values differ, which look like further objects.
    pixels = np.repeat((50 * LABELS).astype(np.uint8)[:, :, None], 4 if name == "alpha.webp" else 3, axis=2)
    Image.fromarray(pixels).save(tmp_path / name, quality=100)
    with pytest.raises(InputError, match=rf"{name} is compressed as lossy {form}"):
        read_labels(tmp_path / name)


def test_lossless_webp_masks_are_read(tmp_path: Path) -> None:
    Image.fromarray((50 * LABELS).astype(np.uint8)).save(tmp_path / "m.webp", lossless=True)
    assert np.array_equal(read_labels(tmp_path / "m.webp").labels, 50 * LABELS)


def test_what_the_palette_hides_is_background(tmp_path: Path) -> None:
    image = Image.fromarray(np.where(LABELS == 0, 3, LABELS % 3).astype(np.uint8))  # the lone pixel of object 3 becomes index 0
    image.putpalette(DAVIS_PALETTE.tobytes())
    image.save(tmp_path / "m.png", transparency=3)
    assert np.array_equal(read_labels(tmp_path / "m.png").labels, LABELS % 3)


@pytest.mark.parametrize("hidden", [None, 2])
def test_pictures_reduced_to_a_palette_are_refused(tmp_path: Path, hidden: int | None) -> None:
    image = Image.fromarray(np.where(LABELS == 0, 2, LABELS % 2).astype(np.uint8))
    image.putpalette([0, 255, 0, 255, 0, 0, 0, 0, 0])  # green is index 0, black is 2
    image.save(tmp_path / "m.png", transparency=hidden)
    with pytest.raises(InputError, match=r"m.png is indexed, and index 0, .* is the color \(0, 255, 0\), while index 2"):
        read_labels(tmp_path / "m.png")


def test_masks_of_frames_that_may_be_masks_of_objects_are_told(tmp_path: Path) -> None:
    for name in ("1", "2", "3"):
        save(tmp_path / "video" / f"{name}.png", np.zeros((40, 60, 3), np.uint8))
    for name in ("1", "2"):
        save(tmp_path / "masks" / f"{name}.png", np.where(int(name) == LABELS, 255, 0).astype(np.uint8))
    with open_source(tmp_path / "video") as source:
        assert "taken as masks of the frames" in read_masks(tmp_path / "masks", source).notes[0]
        save(tmp_path / "masks" / "2.png", LABELS.astype(np.uint8))
        assert read_masks(tmp_path / "masks", source).notes == ()


def test_names_that_may_be_of_frames_or_of_objects(tmp_path: Path) -> None:
    source = open_source(np.zeros((10, 40, 60, 3), np.uint8))
    for name in ("0001", "000005"):
        save(tmp_path / "numbers" / f"{name}.png", LABELS.astype(np.uint8))
    assert list(read_masks(tmp_path / "numbers", source)) == [1, 5]
    save(tmp_path / "words" / "frame_0001.png", LABELS.astype(np.uint8))
    with pytest.raises(InputError, match=r"frame_0001\.png: the mask of a frame, or of an object\?.*like 00000\.png"):
        read_masks(tmp_path / "words", source)
    save(tmp_path / "objects" / "dog_07.png", (LABELS == 1).astype(np.uint8))
    assert read_masks(tmp_path / "objects", source)[0].ids == (7,)


def test_pictures_are_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    picture = cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3)).astype(np.uint8), (0, 0), 5)
    picture = cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX)
    with pytest.raises(InputError, match=r"colors \(\(\d+, \d+, \d+\) on \d+ pixels.*not in the DAVIS palette"):
        read_labels(save(tmp_path / "m.png", picture))
    with pytest.raises(InputError, match="no label map"):
        read_labels(save(tmp_path / "m.png", picture[:, :, 0]))


def test_gradients_are_refused(tmp_path: Path) -> None:
    ramp = np.arange(200).repeat(4)[None].repeat(50, 0).astype(np.uint8)
    with pytest.raises(InputError, match="gradient"):
        read_labels(save(tmp_path / "m.png", ramp))


def test_foreign_colors_and_soft_alpha_are_refused(tmp_path: Path) -> None:
    color = np.zeros((9, 9, 3), np.uint8)
    color[3:6, 3:6] = (255, 0, 0)
    with pytest.raises(InputError, match=r"2 colors .*\(255, 0, 0\) on 9 pixels.* 1 of them are not in the DAVIS palette"):
        read_labels(save(tmp_path / "m.png", color))
    with pytest.raises(InputError, match="transparency"):
        read_labels(save(tmp_path / "m.png", np.dstack([np.full((9, 9, 3), 255, np.uint8), np.full((9, 9), 100, np.uint8)])))


def test_empty_missing_and_broken_masks(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match=r"m\.png has no object in it: all of its 81 pixels are 0"):
        read_labels(path)
    assert read_labels(path, allow_empty=True).ids == ()
    with pytest.raises(InputError, match=r"none\.png: there is no such mask"):
        read_labels(tmp_path / "none.png")
    path.write_text("no image")
    with pytest.raises(InputError, match=r"m\.png is no image"):
        read_labels(path)
    with pytest.raises(InputError, match=r"m\.png is 60 x 40 pixels, but the frames are 60 x 41"):
        check_size(LABELS, 41, 60, path)


@settings(max_examples=40, deadline=None)
@given(hnp.arrays(np.uint8, (7, 9), elements=st.integers(0, 255)))
def test_what_the_indexed_sink_writes_is_read_back(tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("hypothesis") / "m.png"
    path.write_bytes(indexed_png(labels, DAVIS_PALETTE.tobytes()))
    assert np.array_equal(read_labels(path, allow_empty=True).labels, labels)


def test_one_image_per_object(tmp_path: Path) -> None:
    a, b = LABELS == 1, LABELS == 2
    b[10:15, 10:15] = True
    save(tmp_path / "dog_012.png", (b * 255).astype(np.uint8))
    save(tmp_path / "3.png", a.astype(np.uint8))
    save(tmp_path / "cat-7.png", np.zeros_like(a, np.uint8))
    found = read_labels(tmp_path)
    assert found.ids == (3, 12)
    assert (found.labels[10:15, 10:15] == 3).all()
    assert found.notes == ("masks overlap on 25 pixels: the lowest id was taken",)
    save(tmp_path / "x_12.png", a.astype(np.uint8))
    with pytest.raises(InputError, match="two masks of object 12"):
        read_labels(tmp_path)
    (tmp_path / "x_12.png").rename(tmp_path / "dog.png")
    with pytest.raises(InputError, match=r"dog\.png: expected the name"):
        read_labels(tmp_path)


def test_masks_of_several_frames(tmp_path: Path) -> None:
    source = open_source(np.zeros((10, 40, 60, 3), np.uint8))
    folder = tmp_path / "masks"
    folder.mkdir()
    save(folder / "00006.png", LABELS.astype(np.uint8))
    save(folder / "00002.png", (LABELS == 1).astype(np.uint8))
    save(folder / "00004.png", np.zeros((40, 60), np.uint8))
    (folder / "00008").mkdir()
    save(folder / "00008" / "5.png", (LABELS == 2).astype(np.uint8))
    masks = read_masks(folder, source)
    assert list(masks) == [2, 6, 8]
    assert [masks[number].ids for number in masks] == [(1,), (1, 2, 3), (5,)]
    assert masks.path(6) == folder / "00006.png"
    assert "1 masks without any object" in masks.notes[0]
    save(folder / "00010.png", LABELS.astype(np.uint8))
    with pytest.raises(InputError, match=r"1 masks that no frame .* named like \(00010\.png\): expected names like 00000\.png"):
        read_mask_folder(folder, source)
    (folder / "00010.png").unlink()
    save(folder / "00009.png", LABELS[:10].astype(np.uint8))
    with pytest.raises(InputError, match=r"00009\.png is 60 x 10 pixels"):
        read_masks(folder, source)


def test_a_mask_of_one_frame(tmp_path: Path) -> None:
    source = open_source(np.zeros((10, 40, 60, 3), np.uint8))
    path = save(tmp_path / "first.png", LABELS.astype(np.uint8))
    assert list(read_masks(path, source)) == [0]
    assert list(read_masks(path, source, frame=4)) == [4]
    with pytest.raises(InputError, match="given for frame 10"):
        read_masks(path, source, frame=10)
    objects = tmp_path / "objects"
    objects.mkdir()
    save(objects / "1.png", (LABELS == 1).astype(np.uint8))
    assert read_masks(objects, source)[0].ids == (1,)
    with pytest.raises(InputError, match=r"60 x 40 pixels, but the frames are 60 x 41"):
        read_masks(path, open_source(np.zeros((10, 41, 60, 3), np.uint8)))
