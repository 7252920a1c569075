"""Any labeled video -> any format -> the same labeled video, wherever the format can hold it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vosformer.errors import InputError, OutputError
from vosformer.formats import FORMATS, LabeledFrame, LabeledVideo, Mask, ObjectInfo, read, recognize, write
from vosformer.formats.polygons import edge_rings, fill_edges, one_ring
from vosformer.io import open_source

WRITTEN = [name for name, form in FORMATS.items() if form.write is not None]
# These share their reader with another format, whose name is told instead.
TOLD_AS = {"coco-polygons": "coco", "xanylabeling": "labelme", "cvat-video": "cvat-images", "masks16": "masks"} | dict.fromkeys(
    ["sav", "rgba"], "objects"
)

names = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Zs")), max_size=6)


@st.composite
def videos(draw: st.DrawFn) -> LabeledVideo:
    """A few small frames with overlapping masks of any shape, gaps between frames, frames without objects."""
    height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    ids = draw(st.lists(st.integers(1, 255), min_size=1, max_size=3, unique=True))
    numbers = sorted(draw(st.lists(st.integers(0, 6), min_size=1, max_size=3, unique=True)))
    frames = []
    for number in numbers:
        present = [i for i in ids if draw(st.booleans())]
        masks = {i: draw(arrays(bool, (height, width))) for i in present}
        scores = {i: draw(st.sampled_from([0.25, 1.0])) for i, mask in masks.items() if mask.any()}
        frames.append(LabeledFrame(number, f"{number:05d}", {i: Mask.of(m) for i, m in masks.items() if m.any()}, scores))
    color = st.none() | st.tuples(*[st.integers(0, 255)] * 3)
    objects = [ObjectInfo(i, draw(names), draw(st.sampled_from(["", "dog", "red <car> & co"])), draw(color)) for i in ids]
    fps = draw(st.sampled_from([None, Fraction(25), Fraction(24000, 1001)]))
    return LabeledVideo.of("clip", frames, objects, (height, width), fps=fps, length=draw(st.integers(7, 9)))


def pixels(video: LabeledVideo) -> dict[int, dict[int, list[list[bool]]]]:
    return {f.number: {i: m.pixels().tolist() for i, m in sorted(f.masks.items()) if m.area} for f in video.frames}


def flat(video: LabeledVideo) -> dict[int, list[list[int]]]:
    return {f.number: f.labels(video.height, video.width).tolist() for f in video.frames}


@pytest.mark.parametrize("name", [name for name in WRITTEN if name not in ("yolo", "xanylabeling", "rgba")])
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(video=videos())
def test_what_a_format_holds_comes_back(name: str, video: LabeledVideo) -> None:
    form = FORMATS[name]
    if "empty" not in form.holds and not any(frame.masks for frame in video.frames):
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / form.place
        notes = " ".join(write(video, path, name))
        found = read(path, size=(video.height, video.width))
    assert (found.height, found.width) == (video.height, video.width)
    if "overlap" in form.holds:
        wanted = pixels(video)
        if name in ("ytvis", "sav-json"):  # list every frame
            wanted = {number: wanted.get(number, {}) for number in range(video.length)}
        assert pixels(found) == wanted
    else:
        wanted_flat = {n: m for n, m in flat(video).items() if "empty" in form.holds or any(map(any, m))}
        assert flat(found) == wanted_flat
        assert ("overlap" in notes) == any(frame.overlap() for frame in video.frames)
    seen = {i for frame in found.frames for i in frame.masks}
    for i in seen:
        item, got = video.objects[i], found.objects[i]
        for key, place in (("name", "names"), ("category", "categories"), ("color", "colors")):
            if place in form.holds and name != "masks":
                assert getattr(got, key) == getattr(item, key)
            elif place not in form.holds and any(getattr(other, key) for other in video.objects.values()):
                assert place in notes
    if name == "masks":
        from vosformer.formats.names import shown_color

        assert all(shown_color(found.objects[i]) == shown_color(video.objects[i]) for i in seen)
    if "rate" in form.holds:
        assert found.fps == video.fps
    if "scores" in form.holds:
        assert {f.number: f.scores for f in found.frames} == {f.number: f.scores for f in video.frames}


@settings(max_examples=60, deadline=None)
@given(
    labels=arrays(
        np.int32,
        st.tuples(st.integers(1, 6), st.integers(1, 6)),
        elements=st.sampled_from([0, 1, 2, 9, 254, 255, 256, 65534, 65535]),
    )
)
@example(labels=np.array([[0, 1, 255]], np.int32))
@example(labels=np.array([[0, 65535]], np.int32))
@pytest.mark.parametrize(("name", "most"), [("masks", 255), ("masks16", 65535)])
def test_every_id_that_fits_a_label_map_comes_back(name: str, most: int, labels: np.ndarray) -> None:
    """Also those that mean something else in other people's pictures: 255 is void there, full white an object 1."""
    labels = np.minimum(labels, most)
    with TemporaryDirectory() as folder:
        write(
            LabeledVideo.of("clip", [LabeledFrame.of_labels(0, "00000", labels)], size=labels.shape), Path(folder) / name, name
        )
        found = read(Path(folder) / name)
    assert np.array_equal(found.frames[0].labels(*labels.shape), labels)
    assert "void" not in " ".join(found.notes)


@settings(max_examples=15, deadline=None)
@given(video=videos())
def test_yolo_holds_simple_shapes_of_categories(video: LabeledVideo) -> None:
    """A part without holes comes back exactly; where parts are joined, only by a bridge of one pixel; the notes say so."""
    objects = {i: item._replace(category=f"kind {i}") for i, item in video.objects.items()}
    video = LabeledVideo(**{**video.__dict__, "objects": objects})
    with TemporaryDirectory() as folder:
        notes = " ".join(write(video, Path(folder) / "y", "yolo"))
        found = read(Path(folder) / "y", size=(video.height, video.width))
    ids = {item.category: i for i, item in objects.items()}
    back = {f.number: {ids[found.objects[i].category]: m for i, m in f.masks.items()} for f in found.frames}
    for frame in video.frames:
        assert set(back[frame.number]) == set(frame.masks)
        for i, mask in frame.masks.items():
            missing = mask.pixels() & ~back[frame.number][i].pixels()
            assert not missing.any()
            assert "bridge" in notes or back[frame.number][i] == mask


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))).filter(np.any))
def test_one_ring_along_the_edges_of_pixels_holds_any_mask(mask: np.ndarray) -> None:
    ring = one_ring(edge_rings(Mask.of(mask)))
    assert np.array_equal(fill_edges([ring.reshape(-1).tolist()], *mask.shape).pixels(), mask)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_run_lengths_are_read_and_checked(mask: np.ndarray) -> None:
    known = Mask.of(mask)
    assert Mask.of_rle(known.rle) == known
    assert np.array_equal(known.pixels(), mask)
    runs = np.diff(np.flatnonzero(np.concatenate([[True], np.diff(np.pad(mask.T.ravel(), 1).astype(int)) != 0, [True]])))
    assert known.area == mask.sum()
    assert len(runs)
    with pytest.raises(ValueError, match="run length"):
        Mask.of_rle({"size": [mask.shape[0] + 1, mask.shape[1]], "counts": known.counts})


def disks() -> LabeledVideo:
    y, x = np.mgrid[:40, :60]
    ring = (np.hypot(y - 20, x - 20) < 12) & (np.hypot(y - 20, x - 20) > 5)
    boxes = (abs(y - 20) < 4) & ((abs(x - 40) < 4) | (abs(x - 54) < 3))
    frames = [LabeledFrame(n, f"{n:05d}", {1: Mask.of(np.roll(ring, n, 1)), 7: Mask.of(boxes)}) for n in range(3)]
    return LabeledVideo.of("clip", frames, [ObjectInfo(7, "boxes", "box", (1, 2, 3))], fps=Fraction(30))


@pytest.mark.parametrize("name", WRITTEN)
def test_what_we_write_is_told_by_what_lies_there(name: str, tmp_path: Path) -> None:
    images = np.full((3, 40, 60, 3), 99, np.uint8)
    write(disks(), tmp_path / FORMATS[name].place, name, pictures=open_source(images))
    form = recognize(tmp_path / FORMATS[name].place)
    assert form is not None
    assert form.name == TOLD_AS.get(name, name)
    found = read(tmp_path / FORMATS[name].place)
    assert len(found.frames) == 3
    assert len(found.objects) == 2
    assert not list(tmp_path.glob(".*")), "nothing half done is left behind"


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "yolo").mkdir()
    (tmp_path / "yolo" / "mine.txt").write_text("precious")
    with pytest.raises(OutputError, match="there already"):
        write(disks(), tmp_path / "yolo", "yolo")
    assert (tmp_path / "yolo" / "mine.txt").read_text() == "precious"
    write(disks(), tmp_path / "yolo", "yolo", overwrite=True)
    assert not (tmp_path / "yolo" / "mine.txt").exists()


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(disks(), tmp_path / "objects", "objects")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    large = LabeledVideo.of("clip", [LabeledFrame(0, "00000", {1000: Mask.of(np.ones((4, 4)))})])
    with pytest.raises(OutputError, match="999"):
        write(large, tmp_path / "objects", "mots-png", overwrite=True)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["coco", "ytvis", "burst", "datumaro", "labelstudio", "labelme", "cvat-images", "mots-txt"])
def test_malformed_files_are_told_by_file_and_field(name: str, tmp_path: Path) -> None:
    """Any value left out or of another kind ends in a result or one sentence of ours that names the file."""
    path = tmp_path / FORMATS[name].place
    write(disks(), path, name)
    file = path if path.is_file() else next(iter(sorted(path.rglob("*.json"))))
    text = file.read_text()
    rng = np.random.default_rng(3)
    messages: list[str] = []
    for _ in range(60):
        at = int(rng.integers(len(text)))
        cut = (
            text[:at] + str(rng.choice(["", "9", '"', "-", "[", "x", "null", "999999999"])) + text[at + int(rng.integers(9)) :]
        )
        file.write_text(cut)
        try:
            read(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 5
    assert all(str(tmp_path) in message for message in messages)


def test_an_unknown_json_is_told_what_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"hello": 1}')
    with pytest.raises(InputError, match=r"a\.json is of no annotation format that is known: read are .*coco.*cvat"):
        read(tmp_path / "a.json")
    with pytest.raises(InputError, match="did you mean 'labelme'"):
        read(tmp_path / "a.json", format="lableme")
