"""`vosformer convert`, `vosformer formats`, and annotation files in `vosformer track`, as a user types them."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vosformer import formats
from vosformer.cli import main
from vosformer.errors import InputError
from vosformer.formats import FORMATS, read
from vosformer.formats.outputs import output_names, place_of
from vosformer.formats.registry import find_format
from vosformer.io import open_source, read_labels

CASES = Path(__file__).parent.parent / "fixtures" / "annotations"
NO_MASKS = {"overlay", "scores", "scores-json", "ros"}  # a bag of ROS is read as frames, not as masks
FAST = ["--model", "default-fast", "--size", "64", "--threads", "1"]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("name", ["labelme.json", "coco.json", "yolo.txt"])
def test_masks_of_annotation_tools_are_prompts(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Case 14: the first mask written equals the annotated polygons, which are the contours of m0.png."""
    words = ["track", str(CASES / "clip.mp4"), "--mask", str(CASES / name), "-o", str(tmp_path), "--stop", "2", *FAST]
    assert main([*words, "--outputs", "masks"]) == 0, capsys.readouterr().err
    written = read_labels(tmp_path / "masks" / "00000.png").labels
    truth = read_labels(CASES / "m0.png").labels
    assert set(np.unique(written)) == {0, 1, 2}
    # COCO fills contours through the centers of pixels half a pixel smaller all around.
    for i in (1, 2):
        assert iou(written == i, truth == i) > (0.88 if name == "coco.json" else 0.999)


def test_every_output_of_track_is_read_back_as_its_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All formats from one run hold the same masks, names and numbers; and each is a prompt for the next run."""
    out = tmp_path / "out"
    (tmp_path / "objects.json").write_text('{"1": {"name": "red disk", "category": "disk", "color": "#ff0000"}, "2": "box"}')
    formats = [name for name, form in FORMATS.items() if form.write is not None]
    words = ["track", str(CASES / "clip.mp4"), "--mask", str(CASES / "m0.png"), "-o", str(out), "--stop", "3", *FAST]
    assert main([*words, "--names", str(tmp_path / "objects.json"), "--outputs", "rle", *formats]) == 0, capsys.readouterr().err
    truth = [read_labels(out / "masks" / f"{n:05d}.png").labels for n in range(3)]
    for name in formats:
        form = find_format(name)
        found = read(out / form.place, size=truth[0].shape)
        labels = [frame.labels(found.height, found.width) for frame in found.frames]
        if name == "rgba":  # by probability, not by the winner
            assert all(iou(a > 0, b > 0) > 0.9 for a, b in zip(labels, truth, strict=False))
        elif form.name not in ("yolo", "xanylabeling"):
            assert all(np.array_equal(a, b) for a, b in zip(labels, truth, strict=False)), name
        if "names" in form.holds:
            assert {item.name for item in found.objects.values()} == {"red disk", "box"}
        if name in ("coco", "labelme", "cvat-video", "yolo", "labelstudio"):
            mask = [
                "track",
                str(CASES / "clip.mp4"),
                "--mask",
                str(out / form.place),
                "-o",
                str(tmp_path / name),
                "--stop",
                "1",
            ]
            assert main([*mask, *FAST, "--outputs", "masks"]) == 0, capsys.readouterr().err
            again = read_labels(tmp_path / name / "masks" / "00000.png").labels
            assert np.mean(again == truth[0]) > 0.999
    assert np.array_equal(np.asarray(Image.open(out / "masks" / "00000.png").getpalette()[3:6]), [255, 0, 0])
    assert "place for" in capsys.readouterr().err


def test_convert_writes_what_another_tool_reads_and_says_what_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coco, yolo = tmp_path / "coco.json", tmp_path / "yolo"
    assert main(["convert", str(CASES / "labelme.json"), "--to", "coco", "-o", str(coco)]) == 0
    data = json.loads(coco.read_text())
    assert [item["name"] for item in data["categories"]]
    assert {item["track_id"] for item in data["annotations"]} == {1, 2}
    words = ["convert", str(coco), "--to", "yolo", "-o", str(yolo), "--frames", str(CASES / "clip.mp4"), "--pictures"]
    assert main(words) == 0
    assert "no place for" in capsys.readouterr().err
    assert len(list((yolo / "images" / "train").iterdir())) == len(list((yolo / "labels" / "train").iterdir())) == 1
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    with open_source(str(CASES / "clip.mp4")) as source:
        picture = np.asarray(Image.open(next((yolo / "images" / "train").iterdir())), float)
        assert np.abs(picture - source.read(0).image).mean() < 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["convert", "nothing.json", "--to", "coco", "-o", "x"], "nothing.json: there is no such file"),
        (["convert", "{case}/coco.json", "--to", "yolov", "-o", "{tmp}/x"], "did you mean 'yolo'"),
        (["convert", "{case}/coco.json", "--to", "coco", "-o", "{tmp}/x", "--video", "a", "--from", "ytvis"], "'videos' is missing"),
        (["convert", "{case}/clip.mp4", "--to", "coco", "-o", "{tmp}/x"], "is of no annotation format that is known"),
        (["track", "{case}/clip.mp4", "--mask", "{case}/m0.png", "-o", "{tmp}", "--outputs", "cooc"], "did you mean coco"),
        (["track", "{case}/clip.mp4", "--mask", "{case}/m0.png", "-o", "{tmp}", "--names", "{case}/coco.json"], "expected {"),
    ],
)  # fmt: skip
def test_mistakes_are_told(words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word.replace("{case}", str(CASES)).replace("{tmp}", str(tmp_path)) for word in words]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_mattes_are_as_long_as_the_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["track", str(CASES / "clip.mp4"), "--mask", str(CASES / "m0.png"), "-o", str(tmp_path), "--stop", "3", *FAST]
    assert main([*words, "--outputs", "matte-ffv1", "matte-png", "--grow", "2"]) == 0, capsys.readouterr().err
    with open_source(str(CASES / "clip.mp4")) as source, open_source(str(tmp_path / "matte-ffv1" / "clip_1_matte.mkv")) as film:
        assert film.count == source.count
        first = film.read(0).image[:, :, 0] > 127
        assert not film.read(film.count - 1).image.any()
    truth = read_labels(CASES / "m0.png").labels == 1
    assert (first & truth).sum() == truth.sum() < first.sum()
    assert len(list((tmp_path / "matte-png" / "2").iterdir())) == 3


def test_formats_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["formats"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in FORMATS)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run writes as everything that vosformer writes of masks."""
    out = tmp_path_factory.mktemp("run")
    words = [
        "track",
        str(CASES / "clip.mp4"),
        "--mask",
        str(CASES / "m0.png"),
        "-o",
        str(out),
        "--stop",
        "2",
        "--pictures",
        *FAST,
    ]
    assert main([*words, "--outputs", *sorted(set(output_names()) - NO_MASKS)]) == 0
    return out


@pytest.mark.parametrize("output", sorted(set(output_names()) - NO_MASKS))
@pytest.mark.parametrize("packed", [False, True])
def test_everything_that_is_written_is_read(everything: Path, tmp_path: Path, output: str, packed: bool) -> None:
    path = everything / place_of(output)
    if packed:
        with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
            for item in [path] if path.is_file() else sorted(path.rglob("*")):
                file.write(item, item.relative_to(everything))
        path = tmp_path / "p.zip"
    truth = read_labels(CASES / "m0.png").labels
    with open_source(str(CASES / "clip.mp4")) as source:
        masks = formats.read_masks(path, source)
        assert list(masks) == [0, 1]
        found = masks[0].labels
    wanted = np.minimum(truth, 1) if output == "cutout" else truth
    assert np.mean(found == wanted) > 0.998
    again = formats.read(path, size=truth.shape)
    assert np.mean(again.frames[0].labels(*truth.shape) == wanted) > 0.998


def test_every_fourth_frame_of_a_file_of_sav(tmp_path: Path) -> None:
    """SA-V's own files: objects from 0, masks of every fourth frame, sizes as floating-point numbers."""
    mask = formats.Mask.of(read_labels(CASES / "m0.png").labels == 1)
    none = formats.Mask.of(np.zeros((mask.height, mask.width), bool))
    data = {"video_id": "clip", "video_duration": 0.48, "video_frame_count": 12.0, "video_height": float(mask.height)}
    data |= {"video_width": float(mask.width), "masklet_id": [0, 1], "masklet_num": 2}
    data |= {"masklet": [[mask.rle, none.rle], [none.rle, mask.rle], [none.rle, none.rle]]}
    (tmp_path / "clip_manual.json").write_text(json.dumps(data))
    found = formats.read(tmp_path / "clip_manual.json")
    assert [(frame.number, tuple(frame.masks)) for frame in found.frames] == [(0, (2,)), (4, (1,)), (8, ())]
    assert found.fps == 25
    assert "object 0 became 2" in " ".join(found.notes)
    assert "every 4th" in " ".join(found.notes)


@pytest.mark.parametrize("kind", ["outside", "no zip", "empty", "cut"])
def test_zips_that_are_none_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m.zip"
    with zipfile.ZipFile(path, "w") as file:
        if kind == "outside":
            file.writestr("../escaped.png", b"x")
        elif kind != "empty":
            file.write(CASES / "m0.png", "m0.png")
    if kind in ("no zip", "cut"):
        path.write_bytes(b"PK\3\4 nothing" if kind == "no zip" else path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"m\.zip"), open_source(str(CASES / "clip.mp4")) as source:
        formats.read_masks(path, source)
    assert not (tmp_path.parent / "escaped.png").exists()


def test_folders_of_objects_and_of_frames_are_told_apart(tmp_path: Path) -> None:
    """OBJECT/FRAME.png as vosformer writes it, FRAME/OBJECT.png as masks of single frames."""
    labels = read_labels(CASES / "m0.png").labels
    for i in (1, 2):
        for folder, name in ((tmp_path / "objects" / str(i), "00001"), (tmp_path / "frames" / "00001", str(i))):
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((labels == i).astype(np.uint8) * 255).save(folder / f"{name}.png")
    with open_source(str(CASES / "clip.mp4")) as source:
        for name in ("objects", "frames"):
            masks = formats.read_masks(tmp_path / name, source)
            assert list(masks) == [1]
            assert np.array_equal(masks[1].labels, labels)


@pytest.mark.parametrize("to", ["overlay", "matte", "matte-ffv1", "matte-png", "exr", "cutout", "rgba", "rle"])
def test_convert_writes_what_is_to_be_looked_at_or_edited(tmp_path: Path, to: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / Path(place_of(to)).name
    words = ["convert", str(CASES / "coco.json"), "--to", to, "-o", str(out), "--frames", str(CASES / "clip.mp4")]
    assert main(words) == 0, capsys.readouterr().err
    truth = read_labels(CASES / "m0.png").labels
    with open_source(str(CASES / "clip.mp4")) as source:
        count = source.count
    if to == "overlay":
        with open_source(out) as film, open_source(str(CASES / "clip.mp4")) as source:
            assert film.count == count
            changed = np.abs(film.read(0).image.astype(int) - source.read(0).image).max(-1) > 60
            assert changed[truth > 0].mean() > 0.5 > 0.05 > changed[truth == 0].mean()
        assert f"{count - 1} frames" in capsys.readouterr().err
        return
    found = formats.read(out, size=truth.shape)
    wanted = np.minimum(truth, 1) if to == "cutout" else truth
    assert np.mean(found.frames[0].labels(*truth.shape) == wanted) > 0.98
    assert main(words) == 2
    assert "is there already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_edges_of_converted_mattes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the frames, too; what would change nothing is refused."""
    for name, more in (("plain", []), ("grown", ["--grow", "4"])):
        assert main(["convert", str(CASES / "m0.png"), "--to", "matte-png", "-o", str(tmp_path / name), *more]) == 0
    sizes = [(np.asarray(Image.open(next((tmp_path / name / "1").iterdir()))) > 127).sum() for name in ("plain", "grown")]
    assert sizes[1] > 1.2 * sizes[0]
    assert main(["convert", str(CASES / "m0.png"), "--to", "coco", "-o", str(tmp_path / "x.json"), "--grow", "4"]) == 2
    assert "change the edges of mattes" in " ".join(capsys.readouterr().err.split())
    words = ["track", str(CASES / "clip.mp4"), "--mask", str(CASES / "m0.png"), "-o", str(tmp_path / "t"), *FAST]
    assert main([*words, "--feather", "2", "--outputs", "masks"]) == 2
    assert main(["convert", str(CASES / "m0.png"), "--to", "matte-png", "-o", str(tmp_path / "r"), "--refine"]) == 2
    assert "give them with --frames" in " ".join(capsys.readouterr().err.split())


def test_refined_edges_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pymatting", reason="pymatting is not installed")
    words = ["convert", str(CASES / "m0.png"), "--to", "matte-png", "--frames", str(CASES / "clip.mp4")]
    assert main([*words, "-o", str(tmp_path / "hard")]) == 0
    assert main([*words, "-o", str(tmp_path / "soft"), "--refine", "--band", "4"]) == 0, capsys.readouterr().err
    hard, soft = (np.asarray(Image.open(next((tmp_path / name / "1").iterdir())), int) for name in ("hard", "soft"))
    between = (soft > 12) & (soft < 243)
    assert between.sum() > 20
    assert (np.abs(hard - soft) > 12).sum() < (hard > 0).sum() / 2


def test_a_project_of_the_annotator_keeps_how_its_video_is_read(tmp_path: Path) -> None:
    """The second stream of a file, chosen once: the folder of the project alone opens the same frames."""
    from vosformer.annotate.project import Project
    from vosformer.cli.annotate import _places
    from vosformer.cli.source_options import SourceOptions

    two = str(Path(__file__).parents[1] / "fixtures" / "cases" / "two.mkv")
    chosen = SourceOptions(stream=0)
    folder, video, reading = _places(two, tmp_path / "p", chosen)
    with reading.open(video) as source:
        project = Project(folder, source, video, asdict(reading))
        small = (source.height, source.width)
        project.folder_lock.release()
    _, again, kept = _places(str(tmp_path / "p"), None, SourceOptions())
    assert kept == chosen
    with kept.open(again) as source:
        assert (source.height, source.width) == small
    with SourceOptions().open(two) as source:
        assert (source.height, source.width) != small


def test_inspect_reads_a_video_as_track_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = Path(__file__).parents[1] / "fixtures" / "cases" / "cut_off.mp4"
    words = [
        "inspect",
        str(cut),
        "--mask",
        str(CASES / "m0.png"),
        "-o",
        str(tmp_path),
        "--frames",
        "2",
        "--model",
        "default-fast",
    ]
    assert main(words) == 2
    assert "--allow-truncated" in capsys.readouterr().err
    assert main([*words, "--allow-truncated", "--size", "256", "--pictures", "1"]) == 0, capsys.readouterr().err
    assert "cut off" in capsys.readouterr().err


def test_the_table_of_the_docs_is_that_of_the_formats() -> None:
    page = (Path(__file__).parents[2] / "docs" / "io.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for name, form in FORMATS.items():
        cells = [cell.strip() for cell in rows[name].strip("|").split("|")]
        assert cells[0] == f"`{name}`: {form.summary}"
        assert cells[3] == form.library
        assert cells[5] == (form.checked or "no outside tool")
    unchecked = page.split("**No outside tool has checked**")[1].split("names, absences")[0]
    assert set(unchecked.split("`")[1::2]) == {name for name, form in FORMATS.items() if not form.checked}
