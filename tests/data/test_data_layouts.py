"""Every reader on a tiny data set of its layout, and on broken ones: the bad file is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from data_folders import SIZE, clip, coco, davis, folders, gray, mask, picture, squares, youtube
from PIL import Image

from vosformer.cli.data import check as check_command
from vosformer.data.datasets.catalogue import LAYOUTS
from vosformer.data.datasets.check import check
from vosformer.data.datasets.find import read_stills, read_videos, recognize
from vosformer.data.datasets.media import read_image, read_labels, read_sprite
from vosformer.errors import DataError
from vosformer.io.images import read_image as read_frame
from vosformer.io.palette import DAVIS_PALETTE

VIDEO_SETS = {
    "davis2017": ("DAVIS", davis),
    "youtube2018": ("YouTube-VOS-2018/train", youtube),
    "youtube2019": ("ytb/2019/train", youtube),
    "bl30k": ("BL30K", folders),
    "mose": ("mose/train", folders),
    "lvos": ("LVOS", folders),
    "vost": ("VOST", folders),
    "visor": ("VISOR_2022", lambda root: davis(root, "2022")),
    "vosw": ("VOSW/train", folders),
}


@pytest.mark.parametrize("name", VIDEO_SETS)
def test_videos_are_found_below_the_root_and_read(name, tmp_path):
    place, make = VIDEO_SETS[name]
    make(tmp_path / place)
    videos = read_videos(name, tmp_path)
    assert [len(video) for video in videos] == [4, 4]
    image, labels = videos[1].load(2)
    assert image.shape == (24, 32, 3)
    np.testing.assert_array_equal(labels, squares(time=2))
    assert read_videos(name, tmp_path / place) == videos
    assert [layout.name for layout, _ in recognize(tmp_path)] == [name]


def test_strides_of_sets_with_six_labeled_frames_a_second(tmp_path):
    youtube(tmp_path / "YouTube/train")
    assert {video.stride for video in read_videos("youtube2019", tmp_path)} == {5}
    davis(tmp_path / "DAVIS")
    assert {video.stride for video in read_videos("davis2017", tmp_path)} == {1}


def test_davis_2016_has_one_object(tmp_path):
    davis(tmp_path / "DAVIS", "2016", ids=(255,))
    assert set(np.unique(read_videos("davis2016", tmp_path)[0].labels(0))) == {0, 1}


def test_black_and_white_masks_of_own_clips_and_pictures_show_one_object(tmp_path):
    clip(tmp_path / "clips/bw/frames", tmp_path / "clips/bw/masks", ids=(255,))
    clip(tmp_path / "clips/border/frames", tmp_path / "clips/border/masks", ids=(255,))
    mask(tmp_path / "clips/border/masks/00002.png", squares((1, 255)))  # so 255 is for pixels that do not count
    mask(tmp_path / "clips/bw/masks/00001.png", squares(()))
    border, bw = read_videos("folder", tmp_path / "clips")
    assert [set(np.unique(bw.labels(t))) for t in (0, 1, 2)] == [{0, 1}, {0}, {0, 1}]
    assert [set(np.unique(border.labels(t))) for t in (0, 2)] == [{0, 255}, {0, 1, 255}]
    for name, ids in (("a", (255,)), ("b", (1, 255))):
        picture(tmp_path / f"stills/images/{name}.jpg")
        mask(tmp_path / f"stills/masks/{name}.png", squares(ids))
    stills = read_stills("folder-stills", tmp_path / "stills")
    assert [set(np.unique(still.load()[1])) for still in stills] == [{0, 1}, {0, 1, 255}]


def test_pictures_are_turned_as_their_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    for time in range(2):
        path = picture(tmp_path / f"clip/frames/{time}.jpg", time, (32, 24))
        Image.open(path).save(path, exif=exif)
        mask(tmp_path / f"clip/masks/{time}.png", squares(time=time))
    (video,) = read_videos("folder", tmp_path)
    np.testing.assert_allclose(video.load(0)[0], read_frame(video.frames[0]), atol=3)  # as tracking reads it; two JPEG decoders
    assert problems(tmp_path) == []


def test_pictures_are_there_a_second_time_cut_into_their_parts(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"clothing/images/{name}.jpg")
        mask(tmp_path / f"clothing/masks/{name}.png", squares(ids=(1,)))
    mask(tmp_path / "clothing/parts/b.png", squares(ids=(1, 2, 3)))
    found = read_stills("folder-stills", tmp_path / "clothing")
    assert [(still.image.stem, int(still.load()[1].max())) for still in found] == [("a", 1), ("b", 1), ("b", 3)]
    mask(tmp_path / "clothing/parts/c.png", squares(ids=(1, 2, 3)))
    with pytest.raises(DataError, match=r"c.png: this mask has no picture of the same name"):
        read_stills("folder-stills", tmp_path / "clothing")


def test_lists_are_followed(tmp_path):
    davis(tmp_path / "DAVIS", names=("bear", "dog", "swan"))
    (tmp_path / "DAVIS/ImageSets/2017/train.txt").write_text("swan\nbear\n")
    assert [video.name for video in read_videos("davis2017", tmp_path)] == ["swan", "bear"]
    folders(tmp_path / "VOST")
    (tmp_path / "VOST/ImageSets").mkdir()
    (tmp_path / "VOST/ImageSets/train.txt").write_text("two\n")
    assert [video.name for video in read_videos("vost", tmp_path)] == ["two"]


def test_vipseg_things_are_numbered_through_the_video(tmp_path):
    root = tmp_path / "VIPSeg"
    for time in range(3):
        picture(root / "imgs/v" / f"{time}.jpg")
        values = np.zeros((24, 32), np.uint16)
        values[:4], values[5:9], values[10:14] = 17, 12501 if time else 0, 6102
        gray(root / "panomasks/v" / f"{time}.png", values)
    (root / "train.txt").write_text("v\n")
    video = read_videos("vipseg", tmp_path)[0]
    first, later = video.labels(0), video.labels(2)
    assert [first[0, 0], first[5, 0], first[10, 0]] == [0, 0, 1]
    assert [later[0, 0], later[5, 0], later[10, 0]] == [0, 2, 1]


@pytest.mark.parametrize(
    "folders_of",
    [
        lambda root: clip(root / "a/frames", root / "a/masks"),
        lambda root: clip(root / "frames/a", root / "masks/a"),
        lambda root: clip(root / "JPEGImages/a", root / "Annotations/a"),
    ],
)
def test_own_clips(folders_of, tmp_path):
    folders_of(tmp_path)
    (video,) = read_videos("folder", tmp_path)
    assert (video.name, len(video)) == ("a", 4)


def test_masks_painted_in_the_colors_of_the_palette(tmp_path):
    ids = squares((1, 7, 255))
    path = gray(tmp_path / "mask.png", DAVIS_PALETTE[ids])
    assert np.array_equal(read_labels(path), ids)
    see_through = np.dstack([DAVIS_PALETTE[ids], np.full(SIZE, 255, np.uint8)])
    assert np.array_equal(read_labels(gray(path, see_through)), ids)
    gray(path, np.where(ids[..., None] == 7, np.array([255, 255, 254], np.uint8), DAVIS_PALETTE[ids]))
    with pytest.raises(DataError, match="1 of its colors are not in the DAVIS palette"):
        read_labels(path)


def test_own_clip_alone_and_frames_without_masks(tmp_path):
    clip(tmp_path / "walk/frames", tmp_path / "walk/masks")
    (tmp_path / "walk/masks/00002.png").unlink()
    (video,) = read_videos("folder", tmp_path / "walk")
    assert (video.name, [path.stem for path in video.frames]) == ("walk", ["00000", "00001", "00003"])


def test_frames_are_in_natural_order(tmp_path):
    for stem in ("f10", "f9", "f100"):
        picture(tmp_path / "a/frames" / f"{stem}.png")
        mask(tmp_path / "a/masks" / f"{stem}.png", squares())
    assert [p.stem for p in read_videos("folder", tmp_path)[0].frames] == ["f9", "f10", "f100"]


STILL_SETS = {
    "ecssd": ("ECSSD/images/{}.jpg", "ECSSD/ground_truth_mask/{}.png"),
    "msra10k": ("MSRA10K_Imgs_GT/Imgs/{}.jpg", "MSRA10K_Imgs_GT/Imgs/{}.png"),
    "pascal-s": ("PASCAL-S/datasets/imgs/pascal/{}.jpg", "PASCAL-S/datasets/masks/pascal/{}.png"),
    "fss1000": ("static/fss/ab_wheel/{}.jpg", "static/fss/ab_wheel/{}.png"),
    "duts-tr": ("DUTS-TR/DUTS-TR-Image/{}.jpg", "DUTS-TR/DUTS-TR-Mask/{}.png"),
    "hrsod": ("HRSOD/HRSOD_train/{}.jpg", "HRSOD/HRSOD_train_mask/{}.png"),
    "big": ("BIG/val/{}_im.jpg", "BIG/val/{}_gt.png"),
}


@pytest.mark.parametrize("name", STILL_SETS)
def test_saliency_sets(name, tmp_path):
    image, label = STILL_SETS[name]
    for stem in ("x1", "x2"):
        picture(tmp_path / image.format(stem))
        gray(tmp_path / label.format(stem), squares((255,)))
    stills = read_stills(name, tmp_path)
    assert len(stills) == 2
    np.testing.assert_array_equal(stills[0].load()[1], squares((1,)))
    assert [report.errors for report in check(tmp_path)] == [()]


def test_voc_keeps_the_ignored_border(tmp_path):
    picture(tmp_path / "VOCdevkit/VOC2012/JPEGImages/a.jpg")
    mask(tmp_path / "VOCdevkit/VOC2012/SegmentationObject/a.png", squares((1, 255)))
    (still,) = read_stills("voc2012", tmp_path)
    assert set(np.unique(still.load()[1])) == {0, 1, 255}


def test_coco_draws_small_instances_over_large_ones_and_no_crowds(tmp_path):
    coco(tmp_path / "COCO")
    (still,) = read_stills("coco", tmp_path)
    labels = still.load()[1]
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels == 2).sum() == 8
    assert labels[4, 4] == 2
    assert labels[15, 15] == 1


def test_a_missing_set_is_one_sentence_with_its_layout(tmp_path):
    for name, layout in LAYOUTS.items():
        read = read_videos if layout.kind == "video" else read_stills
        with pytest.raises(DataError, match=r"is not there; expected ") as caught:
            read(name, tmp_path)
        assert layout.expected in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no data set 'imagenet'"):
        read_videos("imagenet", tmp_path)
    with pytest.raises(DataError, match="holds stills, but videos"):
        read_videos("coco", tmp_path)
    with pytest.raises(DataError, match="no data set was recognized"):
        check(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        check(tmp_path / "nothing")


def problems(root):
    return [(p.severity, p.path.relative_to(root).as_posix(), p.text) for r in check(root) for p in r.problems]


def test_a_sound_set_has_no_problems(tmp_path):
    davis(tmp_path / "DAVIS")
    (report,) = check(tmp_path)
    assert (report.layout, report.clips, report.frames, report.objects, report.problems) == ("davis2017", 2, 8, 4, ())
    assert check_command(tmp_path) == 0


def broken_frame(root):
    path = root / "JPEGImages/480p/bear/00001.jpg"
    path.write_bytes(path.read_bytes()[:200])
    return "error", "JPEGImages/480p/bear/00001.jpg", "cannot be read"


def empty_file(root):
    (root / "Annotations/480p/bear/00002.png").write_bytes(b"")
    return "error", "Annotations/480p/bear/00002.png", "cannot be read"


def size_mismatch(root):
    mask(root / "Annotations/480p/dog/00003.png", squares(size=(24, 30)))
    return "error", "Annotations/480p/dog/00003.png", "24 x 30 pixels, its frame 00003.jpg is 24 x 32"


def color_mask(root):
    picture(root / "Annotations/480p/dog/00000.png")
    return "error", "Annotations/480p/dog/00000.png", "color picture"


def labels_above_255(root):
    gray(root / "Annotations/480p/dog/00000.png", np.full((24, 32), 300, np.uint16))
    return "error", "Annotations/480p/dog/00000.png", "label 300"


def empty_first_mask(root):
    mask(root / "Annotations/480p/dog/00000.png", squares(()))
    return "warning", "Annotations/480p/dog/00000.png", "first mask is empty"


def id_vanishes(root):
    mask(root / "Annotations/480p/dog/00000.png", squares((1, 2, 9)))
    return "warning", "Annotations/480p/dog/00001.png", "id 9 vanishes"


def antialiased(root):
    labels = squares(time=1)
    labels[1, 2:6] = 77
    mask(root / "Annotations/480p/dog/00001.png", labels)
    return "warning", "Annotations/480p/dog/00001.png", "id 77 never has more than 4 pixels"


def all_empty(root):
    for time in range(4):
        mask(root / f"Annotations/480p/dog/0000{time}.png", squares(()))
    return "error", "Annotations/480p/dog", "no mask of this video has an object"


def sizes_differ(root):
    picture(root / "JPEGImages/480p/dog/00003.jpg", size=(20, 20))
    mask(root / "Annotations/480p/dog/00003.png", squares(size=(20, 20)))
    return "error", "JPEGImages/480p/dog", "2 sizes"


def lone_mask(root):
    (root / "JPEGImages/480p/dog/00003.jpg").unlink()
    return "error", "Annotations/480p/dog/00003.png", "no frame of the same name"


def missing_sequence(root):
    (root / "ImageSets/2017/train.txt").write_text("bear\ndog\ncat\n")
    return "error", "JPEGImages/480p/cat", "listed, but has no frames"


def jpeg_masks(root):
    for path in sorted((root / "Annotations/480p/dog").iterdir()):
        Image.open(path).convert("RGB").save(path.with_suffix(".jpg"))
        path.unlink()
    return "error", "Annotations/480p/dog", "masks are JPEG"


def black_and_white(root):
    for path in sorted((root / "Annotations/480p/dog").iterdir()):
        Image.fromarray(np.where(np.asarray(Image.open(path)) > 0, 255, 0).astype(np.uint8)).save(path)
    return "error", "Annotations/480p/dog", "they hold only 0 and 255"


DEFECTS = [
    broken_frame,
    empty_file,
    size_mismatch,
    color_mask,
    labels_above_255,
    empty_first_mask,
    id_vanishes,
    antialiased,
    all_empty,
    sizes_differ,
    lone_mask,
    missing_sequence,
    jpeg_masks,
    black_and_white,
]


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda f: f.__name__)
def test_each_defect_is_named_once(defect, tmp_path, capsys):
    root = davis(tmp_path / "DAVIS")
    severity, path, text = defect(root)
    found = problems(root)
    assert [entry[:2] for entry in found] == [(severity, path)]
    assert text in found[0][2]
    assert check_command(tmp_path) == (1 if severity == "error" else 0)
    assert f"{severity}: {root / path}: " in capsys.readouterr().out


def test_youtube_frames_that_meta_json_lists_must_exist(tmp_path):
    youtube(tmp_path / "YouTube/train")
    (tmp_path / "YouTube/train/Annotations/0a/00010.png").unlink()
    found = problems(tmp_path)
    assert [path for _, path, _ in found] == ["YouTube/train/Annotations/0a/00010.png"] * 2
    with pytest.raises(DataError, match=r"00010.png: meta.json lists object 1 .*1 more problems"):
        read_videos("youtube2019", tmp_path)
    for text in (
        "[",
        '{"videos": ["0a"]}',
        '{"videos": {"0a": {"objects": []}}}',
        '{"videos": {"0a": {"objects": {"1": []}}}}',
    ):
        (tmp_path / "YouTube/train/meta.json").write_text(text)
        with pytest.raises(DataError, match=r"meta.json: not a list"):
            read_videos("youtube2019", tmp_path)


def test_pictures_without_masks_are_named(tmp_path):
    picture(tmp_path / "images/a.jpg")
    picture(tmp_path / "images/b.jpg")
    mask(tmp_path / "masks/a.png", squares())
    mask(tmp_path / "masks/c.png", squares())
    assert sorted(path for _, path, _ in problems(tmp_path)) == ["images/b.jpg", "masks/c.png"]
    with pytest.raises(DataError, match=r"1 more problems"):
        read_stills("folder-stills", tmp_path)


def test_coco_errors(tmp_path):
    coco(tmp_path / "COCO")
    picture(tmp_path / "COCO/train2017/7.jpg", size=(10, 10))
    assert "its annotations say 24 x 32" in problems(tmp_path)[0][2]
    (tmp_path / "COCO/annotations/instances_train2017.json").write_text("{")
    with pytest.raises(DataError, match="not COCO instance annotations"):
        read_stills("coco", tmp_path)


@pytest.mark.parametrize(
    "segment", [[[10, 10, 20, 20]], [[]], [10, 10, 20, 10, 20, 20], {"counts": "abc"}, {"counts": [90, 4]}]
)
def test_malformed_coco_segmentations_are_named(tmp_path, segment):
    coco(tmp_path / "COCO")
    path = tmp_path / "COCO/annotations/instances_train2017.json"
    about = json.loads(path.read_text())
    about["annotations"][0]["segmentation"] = segment
    path.write_text(json.dumps(about))
    found = [text for _, _, text in problems(tmp_path)]
    assert len(found) == 1
    assert "is neither polygons of 3 points or more nor run lengths" in found[0]


def test_reading_single_files(tmp_path):
    with pytest.raises(DataError, match=r"no.jpg: there is no such picture"):
        read_image(tmp_path / "no.jpg")
    with pytest.raises(DataError, match=r"no.png: there is no such mask"):
        read_labels(tmp_path / "no.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(DataError, match=r"text.png: not a picture"):
        read_image(tmp_path / "text.png")
    clear = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(DataError, match="nothing of this sprite is visible"):
        read_sprite(gray(tmp_path / "clear.png", clear))
    clear[1:3, 2, 3], clear[..., 0] = 255, 9
    assert read_sprite(gray(tmp_path / "dot.png", clear)).tolist() == [[[9, 0, 0, 255]]] * 2
    Image.fromarray(np.eye(3) > 0).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "bits.png"), np.eye(3))
    same = np.repeat(squares()[..., None], 3, 2)
    np.testing.assert_array_equal(read_labels(gray(tmp_path / "gray.png", same)), squares())


def own_clip(root: Path, frames: str = "frames", labeled: int = 4) -> None:
    clip(root / frames, root / "masks", 4)
    for path in sorted((root / "masks").iterdir())[labeled:]:
        path.unlink()


def test_a_video_with_a_single_labeled_frame_is_said(tmp_path: Path) -> None:
    own_clip(tmp_path / "c1", labeled=1)
    own_clip(tmp_path / "c2")
    (report,) = check(tmp_path)
    assert (report.layout, report.clips) == ("folder", 2)
    assert [problem.text.split(",")[0] for problem in report.problems] == ["this video has a single labeled frame"]
    assert "c1" in str(report.problems[0].path)
    assert not report.errors


def test_images_and_masks_of_clips_are_videos_and_those_of_pictures_are_not(tmp_path: Path) -> None:
    own_clip(tmp_path / "clips" / "c1", "images")
    clip(tmp_path / "parallel" / "images" / "c1", tmp_path / "parallel" / "masks" / "c1")
    clip(tmp_path / "stills" / "images", tmp_path / "stills" / "masks")
    for number, name in enumerate(("cat", "dog", "emu", "fox")):
        for path in (tmp_path / "stills").glob(f"*/{number:05d}.*"):
            path.rename(path.with_stem(name))
    found = {folder.name: layout.name for layout, folder in recognize(tmp_path)}
    assert found == {"clips": "folder", "parallel": "folder", "stills": "folder-stills"}
    assert [video.name for video in read_videos("folder", tmp_path / "clips")] == ["c1"]


def test_a_folder_of_picture_sets_with_numbered_names_is_no_folder_of_clips(tmp_path: Path) -> None:
    for name in ("animals", "pets"):
        for number, (height, width) in enumerate([(20, 30), (30, 20), (25, 25)]):
            stem = f"{name}-{number:04d}"
            picture(tmp_path / name / "images" / f"{stem}.jpg", size=(height, width))
            mask(tmp_path / name / "masks" / f"{stem}.png", np.eye(height, width, dtype=np.uint8))
    found = {folder.name: layout.name for layout, folder in recognize(tmp_path)}
    assert found == {"animals": "folder-stills", "pets": "folder-stills"}


@pytest.mark.parametrize("name", ["big", "ecssd", "HRSOD", "fss"])
def test_a_name_alone_makes_no_set(tmp_path: Path, name: str) -> None:
    own_clip(tmp_path / name / "c1")
    assert [(layout.name, folder.name) for layout, folder in recognize(tmp_path)] == [("folder", name)]
    assert [(layout.name, folder.name) for layout, folder in recognize(tmp_path / name)] == [("folder", name)]


def test_sets_are_found_at_any_depth(tmp_path: Path) -> None:
    clip(tmp_path / "a" / "stills" / "ECSSD" / "images", tmp_path / "a" / "stills" / "ECSSD" / "ground_truth_mask")
    davis(tmp_path / "b" / "c" / "d" / "DAVIS")
    own_clip(tmp_path / "b" / "mine" / "c1")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = {layout.name: folder.relative_to(tmp_path).as_posix() for layout, folder in recognize(tmp_path)}
    assert found.pop("davis2017") == "b/c/d/DAVIS"
    assert found == {"ecssd": "a/stills/ECSSD", "folder": "b/mine"}
    assert len(read_stills("ecssd", tmp_path)) == 4
    assert len(read_videos("davis2017", tmp_path)) == 2
