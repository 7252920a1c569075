"""Benchmarks whose files are not folders of label maps: BURST and YouTube-VIS are run and scored, VISOR is handed in as polygons."""

from __future__ import annotations

import json
import zipfile

import cv2
import numpy as np
import pytest
from oracle import Oracle
from PIL import Image

from vosformer.cli import main
from vosformer.errors import DataError
from vosformer.evaluation import evaluate_tracks
from vosformer.evaluation.benchmark import benchmark
from vosformer.evaluation.masks import read_labels
from vosformer.io.records import rle_counts

SIZE = (24, 40)
FRAMES = 7


def labels_at(t):
    """Objects 1 and 2 from the start, 3 from frame 4 on."""
    labels = np.zeros(SIZE, np.uint8)
    labels[2 + t : 10 + t, 2:10] = 1
    labels[4 : 12 + t, 14:20] = 2
    if t >= 4:
        labels[5:15, 25 + t : 35] = 3
    return labels


def write_frames(folder):
    folder.mkdir(parents=True)
    for t in range(FRAMES):
        labels = labels_at(t)
        Image.fromarray(np.dstack([labels, np.full_like(labels, t), labels * 0])).save(folder / f"frame{t:03d}.jpg", "PNG")


def objects(t):
    return {str(i): {"rle": rle_counts(labels_at(t) == i), "is_gt": True} for i in (1, 2, 3) if (labels_at(t) == i).any()}


@pytest.fixture
def burst(tmp_path):
    """Two sequences; every other frame is annotated, all are there."""
    root = tmp_path / "BURST"
    sequences, first = [], []
    for number, name in enumerate(("x", "y")):
        write_frames(root / "frames" / "val" / "HACS" / name)
        every = [f"frame{t:03d}.jpg" for t in range(FRAMES)]
        about = {
            "id": number, "seq_name": name, "dataset": "HACS", "width": SIZE[1], "height": SIZE[0], "fps": 30,
            "all_image_paths": every, "annotated_image_paths": every[::2], "neg_category_ids": [],
            "not_exhaustive_category_ids": [], "track_category_ids": {"1": 805, "2": 805, "3": 5},
        }  # fmt: skip
        known, given = set(), []
        for t in range(0, FRAMES, 2):
            given.append({i: one for i, one in objects(t).items() if i not in known})
            known |= set(objects(t))
        sequences.append({**about, "segmentations": [objects(t) for t in range(0, FRAMES, 2)]})
        first.append({**about, "segmentations": given})
    folder = root / "annotations" / "val"
    folder.mkdir(parents=True)
    rest = {"categories": [{"id": 5, "name": "alarm_clock"}, {"id": 805, "name": "baby"}], "split": "val"}
    (folder / "all_classes.json").write_text(json.dumps({"sequences": sequences, **rest}))
    (folder / "first_frame_annotations.json").write_text(json.dumps({"sequences": first, **rest}))
    return root


def test_burst(burst, tmp_path):
    session = Oracle()
    result = benchmark("burst-val", burst, lambda: session, tmp_path / "out")
    # The third object is given on the first frame that is annotated with it; all frames are seen, between them, too.
    assert [ids for _, ids in session.clips[0]] == [[1, 2], None, None, None, [3], None, None]
    assert result.report.groups["all"]["HOTA"] == pytest.approx(1)
    assert result.report.groups["all"]["AP"] == pytest.approx(1)
    written = json.loads((tmp_path / "out" / "results.json").read_text())["sequences"][0]
    assert [sorted(frame) for frame in written["segmentations"]] == [["1", "2"], ["1", "2"], ["1", "2", "3"], ["1", "2", "3"]]
    assert written["track_category_ids"] == {"1": 805, "2": 805, "3": 5}
    assert result.archive == tmp_path / "out" / "results.json"
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["score"] == pytest.approx(1)


class Losing(Oracle):
    """Loses object 2 after the first frame."""

    def step(self, frame, labels=None, **options):
        found = super().step(frame, labels, **options)
        if len(self.clips[-1]) > 1:
            found.labels[found.labels == 2] = 0
        return found


def test_empty_masks_of_burst_are_left_out(burst, tmp_path):
    result = benchmark("burst-val", burst, Losing, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "results.json").read_text())["sequences"][0]["segmentations"]
    assert [sorted(frame) for frame in written] == [["1", "2"], ["1"], ["1", "3"], ["1", "3"]]
    again = evaluate_tracks(tmp_path / "out" / "results.json", burst / "annotations" / "val", rules="burst")
    assert 0.5 < result.report.score == again.score < 1


def test_objects_of_burst_that_overlap(burst, tmp_path):
    path = burst / "annotations" / "val" / "first_frame_annotations.json"
    data = json.loads(path.read_text())
    overlapping = labels_at(0) > 0
    data["sequences"][0]["segmentations"][0]["2"]["rle"] = rle_counts(overlapping)
    path.write_text(json.dumps(data))
    session = Oracle()
    benchmark("burst-val", burst, lambda: session, tmp_path / "out")
    assert [clip[0][1] for clip in session.clips] == [[1], [1], [1, 2]]  # two passes over the first video
    first = read_labels(tmp_path / "out" / "Annotations" / "HACS-x" / "2" / "frame000.png") > 0
    assert np.array_equal(first, overlapping)


def test_burst_whose_truth_is_not_public_and_what_is_missing(burst, tmp_path):
    (burst / "annotations" / "val" / "all_classes.json").unlink()
    result = benchmark("burst-val", burst, Oracle, tmp_path / "out")
    assert result.report is None
    assert result.archive.is_file()
    (burst / "frames" / "val" / "HACS" / "x" / "frame003.jpg").unlink()
    with pytest.raises(DataError, match=r"lacks 1 of 7 frames of HACS-x: frame003\.jpg"):
        benchmark("burst-val", burst, Oracle, tmp_path / "other")
    with pytest.raises(DataError, match=r"first_frame_annotations\.json"):
        benchmark("burst-test", burst, Oracle, tmp_path / "other")


@pytest.fixture
def youtube_vis(tmp_path):
    root = tmp_path / "YTVIS" / "valid"
    write_frames(root / "JPEGImages" / "vid")
    counts = {
        i: [rle_counts(labels_at(t) == i) if (labels_at(t) == i).any() else None for t in range(FRAMES)] for i in (1, 2, 3)
    }
    annotations = [
        {
            "id": 10 * i, "video_id": 7, "category_id": 1 if i < 3 else 2, "iscrowd": 0,
            "segmentations": [one and {"size": list(SIZE), "counts": one} for one in runs],
        }
        for i, runs in counts.items()
    ]  # fmt: skip
    crowd = {"id": 90, "video_id": 7, "category_id": 1, "iscrowd": 1, "segmentations": [None] * FRAMES}
    names = [f"vid/frame{t:03d}.jpg" for t in range(FRAMES)]
    video = {"id": 7, "width": SIZE[1], "height": SIZE[0], "length": FRAMES, "file_names": names}
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}]
    data = {"videos": [video], "annotations": [*annotations, crowd], "categories": categories}
    (root / "instances.json").write_text(json.dumps(data))
    return root.parent


def test_youtube_vis(youtube_vis, tmp_path, capsys):
    session = Oracle()
    result = benchmark("youtube-vis", youtube_vis, lambda: session, tmp_path / "out")
    assert [ids for _, ids in session.clips[0]] == [[1, 2], None, None, None, [3], None, None]
    assert result.report.groups["all"]["AP"] == result.report.groups["all"]["HOTA"] == pytest.approx(1)
    with zipfile.ZipFile(result.archive) as archive:
        assert archive.namelist() == ["results.json"]
        tracks = json.loads(archive.read("results.json"))
    assert [(one["video_id"], one["category_id"]) for one in tracks] == [(7, 1), (7, 1), (7, 2)]
    assert [mask is None for mask in tracks[2]["segmentations"]] == [True] * 4 + [False] * 3
    arguments = [
        "benchmark",
        "youtube-vis",
        str(youtube_vis),
        "-o",
        str(tmp_path / "cli"),
        "--model",
        "default-fast",
        "--size",
        "48",
    ]
    assert main(arguments) == 0
    assert "HOTA" in capsys.readouterr().out


@pytest.fixture
def visor(tmp_path):
    root = tmp_path / "VISOR_2022"
    name = "P01_107_seq_00001"
    write_frames(root / "JPEGImages" / "480p" / name)
    (root / "Annotations" / "480p" / name).mkdir(parents=True)
    for t in range(FRAMES):
        labels = labels_at(t)
        labels[labels == 3] = 0
        labels[4 + t : 6 + t, 4:6] = 0  # a hole
        labels[20, 2] = 1  # a second piece
        file = root / "JPEGImages" / "480p" / name / f"frame{t:03d}.jpg"
        Image.fromarray(np.dstack([labels, labels * 0, labels * 0])).save(file, "PNG")
        Image.fromarray(labels).save(root / "Annotations" / "480p" / name / f"frame{t:03d}.png")
    for split in ("val", "val_unseen"):
        path = root / "ImageSets" / "2022" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "val_data_mapping.json").write_text(json.dumps({name: {"1": "knife", "2": "left hand"}}))
    return root


@pytest.mark.parametrize("dataset", ["visor-val", "visor-val-unseen"])
def test_visor_is_handed_in_as_polygons(dataset, visor, tmp_path):
    result = benchmark(dataset, visor, Oracle, tmp_path / "out")
    assert result.report.jf == 1
    assert result.archive == tmp_path / "out" / "val.zip"
    with zipfile.ZipFile(result.archive) as archive:
        assert archive.namelist() == ["val.json"]
        data = json.loads(archive.read("val.json"))
    assert data["info"]["Challenge"] == "semi_supervised_vos"
    frames = data["video_annotations"]
    assert [one["image"]["name"] for one in frames] == [f"frame{t:03d}.png" for t in range(FRAMES)]
    assert frames[0]["image"] == {
        "image_path": "P01_107/frame000.png", "name": "frame000.png", "video": "P01_107", "subsequence": "P01_107_seq_00001",
    }  # fmt: skip
    for one in frames:
        labels = read_labels(visor / "Annotations/480p/P01_107_seq_00001" / one["image"]["name"])
        assert [part["name"] for part in one["annotations"]] == ["knife", "left hand"]
        for number, part in enumerate(one["annotations"], 1):
            filled = np.zeros(SIZE, np.uint8)
            cv2.fillPoly(filled, [np.array(ring, np.int32) for ring in part["segments"]], 1)
            assert np.array_equal(filled > 0, labels == number)  # holes and pieces come back


def test_visor_without_names(visor, tmp_path):
    mapping = visor / "val_data_mapping.json"
    mapping.write_text(json.dumps({"P01_107_seq_00001": {"1": "knife"}}))
    with pytest.raises(DataError, match="no name for object 2 of P01_107_seq_00001"):
        benchmark("visor-val", visor, Oracle, tmp_path / "some")
    mapping.unlink()
    result = benchmark("visor-val", visor, Oracle, tmp_path / "out")
    assert result.archive.name == "visor-val.zip"
    assert "val_data_mapping.json" in result.notes[0]
    with zipfile.ZipFile(result.archive) as archive:
        assert len(archive.namelist()) == FRAMES
