"""What other tools read of the files that we write. Each test is skipped where its tool is not installed (`make test-tools`)."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vosformer.formats import LabeledFrame, LabeledVideo, Mask, ObjectInfo, read, write
from vosformer.formats.cvat import decode_mask, encode_mask
from vosformer.formats.labelstudio import decode_rle, encode_rle
from vosformer.formats.outputs import Setting, render
from vosformer.io import open_source
from vosformer.io.edges import Edges

H, W = 40, 60
MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


@pytest.fixture
def video() -> LabeledVideo:
    """A ring (with a hole) and a disk that moves, on 3 frames; the disk is gone in the last one."""
    y, x = np.mgrid[:H, :W]
    ring = (np.hypot(y - 20, x - 18) < 12) & (np.hypot(y - 20, x - 18) > 5)
    frames = []
    for number in range(3):
        masks = {3: Mask.of(ring)}
        if number < 2:
            masks[7] = Mask.of(np.hypot(y - 20, x - 40 - 3 * number) < 8)
        frames.append(LabeledFrame(number, f"{number:05d}", masks))
    objects = [ObjectInfo(3, "the ring", "ring", (250, 0, 9)), ObjectInfo(7, "", "disk")]
    return LabeledVideo.of("clip", frames, objects, fps=Fraction(30))


def source() -> object:
    rng = np.random.default_rng(0)
    return open_source(rng.integers(0, 255, (3, H, W, 3), np.uint8))


def test_pycocotools_loads_coco(video: LabeledVideo, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    for name in ("coco", "coco-polygons"):
        write(video, tmp_path / name, name)
        data = COCO(str(tmp_path / name))
        for frame in video.frames:
            found = {ann["track_id"]: data.annToMask(ann) for ann in data.loadAnns(data.getAnnIds([frame.number]))}
            assert set(found) == set(frame.masks)
            assert all(np.array_equal(found[i] > 0, mask.pixels()) for i, mask in frame.masks.items())
            assert all(ann["area"] == frame.masks[ann["track_id"]].area for ann in data.imgToAnns[frame.number])


@settings(max_examples=60, deadline=None)
@given(MASKS.filter(np.any))
def test_cvat_sdk_has_the_same_run_lengths(mask: np.ndarray) -> None:
    masks = pytest.importorskip("cvat_sdk.masks", reason="cvat-sdk is not installed")
    runs, left, top, width, height = encode_mask(Mask.of(mask))
    theirs = [int(value) for value in masks.encode_mask(mask)]
    assert theirs == [*runs, left, top, left + width - 1, top + height - 1]
    assert np.array_equal(masks.decode_mask(theirs, image_width=mask.shape[1], image_height=mask.shape[0]), mask)
    assert np.array_equal(decode_mask(runs, left, top, width, height, *mask.shape).pixels(), mask)


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_label_studio_sdk_reads_our_brush_and_we_read_its(mask: np.ndarray) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush", reason="label-studio-sdk is not installed")
    theirs = brush.decode_rle(encode_rle(mask)).reshape(*mask.shape, 4)
    assert np.array_equal(theirs[:, :, 3] > 0, mask)
    assert np.array_equal(decode_rle([int(v) for v in brush.mask2rle(mask.astype(np.uint8) * 255)], *mask.shape), mask)


def test_label_studio_accepts_tasks_for_the_configuration(video: LabeledVideo, tmp_path: Path) -> None:
    label_interface = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    write(video, tmp_path / "ls", "labelstudio")
    interface = label_interface.LabelInterface((tmp_path / "ls" / "config.xml").read_text())
    for task in json.loads((tmp_path / "ls" / "tasks.json").read_text()):
        assert interface.validate_task({"data": task["data"]})
        assert [interface.validate_prediction(p, return_errors=True) for p in task["predictions"]] == [[]]


@pytest.mark.parametrize(("name", "form"), [("cvat-images", "cvat"), ("coco", "coco_instances"), ("datumaro", "datumaro")])
def test_datumaro_finds_the_same_masks(name: str, form: str, video: LabeledVideo, tmp_path: Path) -> None:
    dm = pytest.importorskip("datumaro", reason="datumaro is not installed")
    images = source()
    if name == "datumaro":
        write(video, tmp_path / "d", name, pictures=images)
        path = tmp_path / "d"
    else:
        path = tmp_path / "d"
        (path / "annotations").mkdir(parents=True)
        write(video, path / ("train.xml" if form == "cvat" else "annotations/instances_default.json"), name)
        write(video, tmp_path / "y", "yolo", pictures=images)
        folder = path / "images" if form == "cvat" else path / "images" / "default"
        folder.mkdir(parents=True)
        for picture in (tmp_path / "y" / "images" / "train").iterdir():
            (folder / picture.name).write_bytes(picture.read_bytes())
    dataset = dm.Dataset.import_from(str(path), form)
    names = [label.name for label in dataset.categories()[dm.AnnotationType.label]]
    assert len(dataset) == 3
    for item in dataset:
        frame = video.frames[int(item.id.rsplit("/", 1)[-1])]
        found = {int(ann.attributes["track_id"]): ann for ann in item.annotations if ann.type == dm.AnnotationType.mask}
        assert set(found) == set(frame.masks)
        for i, ann in found.items():
            assert np.array_equal(ann.image > 0, frame.masks[i].pixels())
            assert names[ann.label] == video.objects[i].category


def test_datumaro_reads_cvat_video_tracks(video: LabeledVideo, tmp_path: Path) -> None:
    dm = pytest.importorskip("datumaro", reason="datumaro is not installed")
    write(video, tmp_path / "annotations.xml", "cvat-video")
    dataset = dm.Dataset.import_from(str(tmp_path), "cvat")
    shapes = [(int(item.attributes["frame"]), ann) for item in dataset for ann in item.annotations]
    shown = [(n, ann) for n, ann in shapes if not ann.attributes.get("outside")]
    assert sorted((n, int(ann.attributes["track_id"])) for n, ann in shown) == [(0, 3), (0, 7), (1, 3), (1, 7), (2, 3)]
    from vosformer.formats.polygons import fill_edges

    for number, ann in shown:
        mask = fill_edges([ann.points], H, W)
        assert mask == video.frames[number].masks[int(ann.attributes["track_id"])]


def test_datumaro_reads_mots(video: LabeledVideo, tmp_path: Path) -> None:
    dm = pytest.importorskip("datumaro", reason="datumaro is not installed")
    write(video, tmp_path / "train", "mots-png", pictures=source())
    dataset = dm.Dataset.import_from(str(tmp_path), "mots")
    for item in dataset:
        frame = video.frames[int(item.id)]
        found = {int(ann.attributes["track_id"]): ann.image > 0 for ann in item.annotations}
        assert {i: m.tolist() for i, m in found.items()} == {i: m.pixels().tolist() for i, m in frame.masks.items()}


def test_supervision_loads_coco_and_yolo(video: LabeledVideo, tmp_path: Path) -> None:
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    root = tmp_path / "yolo"
    write(video, root, "yolo", pictures=source())
    write(video, tmp_path / "coco.json", "coco")
    images, labels = root / "images" / "train", root / "labels" / "train"
    yolo = sv.DetectionDataset.from_yolo(str(images), str(labels), str(root / "data.yaml"), force_masks=True)
    coco = sv.DetectionDataset.from_coco(str(images), str(tmp_path / "coco.json"), force_masks=True)
    ids = {item.category: i for i, item in video.objects.items()}
    for dataset in (yolo, coco):
        assert dataset.classes == ["ring", "disk"]
        assert len(dataset) == 3
        for path, _, detections in dataset:
            frame = video.frames[int(Path(path).stem)]
            assert len(detections) == len(frame.masks)
            for kind, mask in zip(detections.class_id, detections.mask, strict=True):
                truth = frame.masks[ids[dataset.classes[kind]]].pixels()
                wrong = int((np.asarray(mask) != truth).sum())
                assert wrong == 0 if dataset is coco or kind == 1 else wrong < 30, "a bridge of one pixel into the hole"


def compressed(annotation: dict) -> list:
    """The run lengths of a track as result files have them."""
    return [None if rle is None else Mask.of_rle(rle).rle for rle in annotation["segmentations"]]


def decode(rle: dict) -> np.ndarray:
    from pycocotools import mask

    return np.asarray(mask.decode(rle), bool)


def trackeval_settings(folder: Path, **more: object) -> dict[str, object]:
    names = {"GT_FOLDER": str(folder / "gt"), "TRACKERS_FOLDER": str(folder / "trackers"), "TRACKERS_TO_EVAL": ["ours"]}
    return {**names, "PRINT_CONFIG": False, **more}


def test_trackeval_scores_mots_as_perfect(video: LabeledVideo, tmp_path: Path) -> None:
    """The truth as its own result: HOTA 1 through trackeval's reader of KITTI MOTS text."""
    trackeval = pytest.importorskip("trackeval", reason="trackeval is not installed")
    objects = {i: item._replace(category="car" if i == 3 else "pedestrian") for i, item in video.objects.items()}
    video = LabeledVideo(**{**video.__dict__, "objects": objects})
    for folder in ("gt/label_02", "trackers/ours/data"):
        (tmp_path / folder).mkdir(parents=True)
        write(video, tmp_path / folder / "0000.txt", "mots-txt")
    dataset = trackeval.datasets.KittiMOTS(trackeval_settings(tmp_path, SEQ_INFO={"0000": 3}))
    raw = dataset.get_raw_seq_data("ours", "0000")
    for kind in ("car", "pedestrian"):
        found = trackeval.metrics.HOTA().eval_sequence(dataset.get_preprocessed_seq_data(raw, kind))
        assert float(np.mean(found["HOTA"])) == pytest.approx(1)
        assert int(np.max(found["HOTA_TP"])) == (3 if kind == "car" else 2)


def test_trackeval_reads_youtube_vis(video: LabeledVideo, tmp_path: Path) -> None:
    trackeval = pytest.importorskip("trackeval", reason="trackeval is not installed")
    (tmp_path / "gt" / "youtube_vis_train_sub_split").mkdir(parents=True)
    data = tmp_path / "trackers" / "youtube_vis_train_sub_split" / "ours" / "data"
    data.mkdir(parents=True)
    write(video, tmp_path / "gt" / "youtube_vis_train_sub_split" / "truth.json", "ytvis")
    truth = json.loads((tmp_path / "gt" / "youtube_vis_train_sub_split" / "truth.json").read_text())
    (data / "results.json").write_text(
        json.dumps([{**item, "score": 1.0, "segmentations": compressed(item)} for item in truth["annotations"]])
    )
    dataset = trackeval.datasets.YouTubeVIS(
        trackeval_settings(tmp_path, GT_FOLDER=f"{tmp_path}/gt/", TRACKERS_FOLDER=f"{tmp_path}/trackers/")
    )
    (name,) = dataset.seq_list
    raw = dataset.get_raw_seq_data("ours", name)
    for dets in (raw["gt_dets"], raw["tracker_dets"]):
        found = [[decode(rle).tolist() for rle in frame] for frame in dets]
        assert found == [[mask.pixels().tolist() for mask in frame.masks.values()] for frame in video.frames]


def test_ultralytics_and_labelme_rasterize_our_polygons_as_we_do(video: LabeledVideo, tmp_path: Path) -> None:
    """labelme's and Ultralytics' way of filling, written down here: Pillow's polygon, OpenCV's after cutting to whole pixels."""
    from PIL import Image, ImageDraw

    write(video, tmp_path / "l", "xanylabeling")
    write(video, tmp_path / "y", "yolo")
    disk = video.frames[0].masks[7].pixels()
    shape = next(s for s in json.loads((tmp_path / "l" / "00000.json").read_text())["shapes"] if s["group_id"] == 7)
    image = Image.new("L", (W, H), 0)
    ImageDraw.Draw(image).polygon(xy=[tuple(point) for point in shape["points"]], outline=1, fill=1)
    assert np.array_equal(np.asarray(image, bool), disk)
    line = (tmp_path / "y" / "labels" / "train" / "00000.txt").read_text().splitlines()[1].split()[1:]
    corners = np.array(line, np.float32).reshape(-1, 2) * np.array([W, H], np.float32)
    pixels = np.zeros((H, W), np.uint8)
    cv2.fillPoly(pixels, [np.asarray(corners, np.int32)], 1)
    assert np.array_equal(pixels > 0, disk)


def test_what_supervision_writes_is_read(video: LabeledVideo, tmp_path: Path) -> None:
    """A data set that supervision saves as COCO and YOLO comes back with the same masks."""
    sv = pytest.importorskip("supervision", reason="supervision is not installed")
    write(video, tmp_path / "coco.json", "coco")
    write(video, tmp_path / "yolo", "yolo", pictures=source())
    images = tmp_path / "yolo" / "images" / "train"
    dataset = sv.DetectionDataset.from_coco(str(images), str(tmp_path / "coco.json"), force_masks=True)
    dataset.as_coco(images_directory_path=str(tmp_path / "i"), annotations_path=str(tmp_path / "theirs.json"))
    found = read(tmp_path / "theirs.json")
    assert len(found.frames) == 3
    disk = video.frames[0].masks[7].pixels()
    masks = [mask.pixels() for mask in found.frames[0].masks.values()]
    assert max(float((mask & disk).sum() / (mask | disk).sum()) for mask in masks) > 0.8


def test_trackeval_scores_burst_as_perfect(video: LabeledVideo, tmp_path: Path) -> None:
    """The truth as its own result, through trackeval's reader of BURST; its categories are those of TAO."""
    trackeval = pytest.importorskip("trackeval", reason="trackeval is not installed")
    (tmp_path / "gt").mkdir()
    (tmp_path / "trackers" / "ours" / "data").mkdir(parents=True)
    scored = [replace(frame, scores=dict.fromkeys(frame.masks, 0.9)) for frame in video.frames]
    write(video, tmp_path / "gt" / "all.json", "burst")
    write(replace(video, frames=scored), tmp_path / "trackers" / "ours" / "data" / "all.json", "burst")
    dataset = trackeval.datasets.BURST(trackeval_settings(tmp_path, SPLIT_TO_EVAL="test"))
    (name,) = dataset.seq_list
    raw = dataset.get_raw_seq_data("ours", name)
    assert [len(frame) for frame in raw["gt_ids"]] == [2, 2, 1]
    seen = 0
    for kind in dataset.class_list:
        data = dataset.get_preprocessed_seq_data(raw, kind)
        seen += data["num_gt_dets"]
        assert float(np.mean(trackeval.metrics.HOTA().eval_sequence(data)["HOTA"])) == pytest.approx(1)
    assert seen == 5


def test_trackeval_scores_our_masks_as_davis(video: LabeledVideo, tmp_path: Path) -> None:
    """Indexed PNGs through trackeval's reader of DAVIS: the truth as its own result is perfect."""
    trackeval = pytest.importorskip("trackeval", reason="trackeval is not installed")
    for folder in ("gt", "trackers/ours/data"):
        (tmp_path / folder).mkdir(parents=True)
        write(video, tmp_path / folder / "clip", "masks")
    dataset = trackeval.datasets.DAVIS(trackeval_settings(tmp_path, SEQ_INFO={"clip": 3}))
    raw = dataset.get_raw_seq_data("ours", "clip")
    data = dataset.get_preprocessed_seq_data(raw, "general")
    assert data["num_gt_ids"] == data["num_tracker_ids"] == 2
    assert float(np.mean(trackeval.metrics.HOTA().eval_sequence(data)["HOTA"])) == pytest.approx(1)


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="ffprobe is not installed")
@pytest.mark.parametrize(
    ("output", "name", "pixels"),
    [
        ("overlay", "overlay.mp4", "yuv420p"),
        ("cutout", "cutout.mov", "yuva444p12le"),
        ("matte", "matte/clip_7_matte.mov", "yuv422p10le"),
        ("matte-ffv1", "matte-ffv1/clip_7_matte.mkv", "gray"),
    ],
)
def test_ffprobe_reads_every_film(video: LabeledVideo, tmp_path: Path, output: str, name: str, pixels: str) -> None:
    setting = Setting(open_source(np.zeros((3, H, W, 3), np.uint8), fps=30), "clip")
    render(video, output, tmp_path / Path(name).parts[0], setting)
    words = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(tmp_path / name)]
    run = subprocess.run(words, capture_output=True, check=True)
    (stream,) = [item for item in json.loads(run.stdout)["streams"] if item["codec_type"] == "video"]
    assert not run.stderr
    assert (stream["width"], stream["height"], stream["nb_read_frames"]) == (W, H, "3")
    assert float(Fraction(stream["r_frame_rate"])) == pytest.approx(30, rel=0.03), "mkv counts milliseconds"
    assert stream["pix_fmt"].startswith(pixels[:8])


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("blender") is None, reason="Blender is not installed (Debian: apt-get install blender)")
@pytest.mark.parametrize(("i", "name"), [(3, "the ring"), (7, "disk 7")])
def test_blender_picks_each_object_of_cryptomatte_by_its_name(video: LabeledVideo, tmp_path: Path, i: int, name: str) -> None:
    """The Cryptomatte node of Blender, without a window, gives the matte that we wrote, soft edges included."""
    exr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed")
    blank = open_source(np.zeros((3, H, W, 3), np.uint8), fps=30)
    setting = Setting(blank, "clip", objects=video.objects, edges=Edges(feather=1.5))
    render(video, "exr", tmp_path / "exr", setting)
    render(video, "matte-png", tmp_path / "png", setting)
    script = Path(__file__).parents[1] / "support" / "blender_cryptomatte.py"
    picture, out = tmp_path / "exr" / "clip.00001.exr", tmp_path / "out.exr"
    words = [
        "blender",
        "-b",
        "--factory-startup",
        "-t",
        "1",
        "-P",
        str(script),
        "--",
        str(picture),
        str(out),
        str(W),
        str(H),
        name,
    ]
    run = subprocess.run(words, capture_output=True, text=True, check=False, timeout=280)
    assert out.exists(), run.stdout + run.stderr
    with exr.File(str(out)) as file:
        matte = next(iter(file.channels().values())).pixels[..., 0]
    truth = cv2.imread(str(tmp_path / "png" / str(i) / "clip.00001.png"), cv2.IMREAD_UNCHANGED) / 255
    assert np.abs(matte - truth).max() < 0.003
    assert ((truth > 0.1) & (truth < 0.9)).sum() > 20


@pytest.mark.parametrize("form", ["labelme", "xanylabeling"])
def test_labelme_itself_reads_the_same_masks(video: LabeledVideo, tmp_path: Path, form: str) -> None:
    """Polygons, and masks with holes as its shape `mask`, through labelme's own reader and rasterizer."""
    label_file = pytest.importorskip("labelme._label_file", reason="labelme is not installed", exc_type=ImportError)
    from labelme.utils import shapes_to_label

    write(video, tmp_path / "l", form, pictures=source())
    for frame in video.frames:
        shapes = label_file.LabelFile(str(tmp_path / "l" / f"{frame.name}.json")).shapes
        assert {shape["group_id"] for shape in shapes} == set(frame.masks)
        for i, mask in frame.masks.items():
            own = [shape for shape in shapes if shape["group_id"] == i]
            labels, _ = shapes_to_label((H, W), own, {shape["label"]: 1 for shape in own})
            holes = form == "xanylabeling" and i == 3  # has no place for them, and says so
            assert np.array_equal(labels > 0, mask.pixels()) != holes
