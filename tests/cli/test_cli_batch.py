"""`vosformer batch`, as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from dummy_models import flat_clip
from PIL import Image

from vosformer.cli import main
from vosformer.io import indexed_png
from vosformer.registry import variant
from vosformer.weights import save_weights

TINY = {"tiny": True, "drop_path": 0.0}


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(variant("aot-t").build(**TINY), "aot-t", path, overrides=TINY)
    return ["--model", "aot-t", "--weights", str(path), "--device", "cpu", "--dtype", "fp32", "--size", "64", "--threads", "1"]


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of three image folders with masks beside, `b` having a mask of another size."""
    for name in "abc":
        images, labels = flat_clip((1, 2), 4, size=(66, 98))
        (tmp_path / "in" / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "in" / name / f"{number:05d}.png")
        (tmp_path / "in" / f"{name}.png").write_bytes(indexed_png(labels[0][: 66 - 2 * (name == "b")]))
    return tmp_path


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.png")) if p.is_file()}


def status(out: Path) -> dict[str, str]:
    return {e["name"]: e["status"] for e in map(json.loads, (out / "batch.jsonl").read_text().splitlines())}


def test_a_folder_is_done_with_its_failures_listed_and_resumed(
    clips: Path, options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["batch", str(clips / "in"), "-o", str(clips / "out"), "--outputs", "masks", "coco", *options]
    assert main(words) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "2 of 3 videos done, 1 failed" in said
    assert "b.png is 98 x 64 pixels" in said.rsplit("failed; see", 1)[1]
    assert status(clips / "out") == {"a": "done", "b": "failed", "c": "done"}
    before = {p: p.stat().st_mtime_ns for p in (clips / "out" / "a" / "masks").iterdir()}
    assert len(before) == 4
    assert (clips / "out" / "c" / "coco.json").exists()
    _, labels = flat_clip((1, 2), 4, size=(66, 98))
    (clips / "in" / "b.png").write_bytes(indexed_png(labels[0]))
    assert main([*words, "--resume"]) == 0
    assert "1 of 3 videos done, 2 were done before, 0 failed" in " ".join(capsys.readouterr().err.split())
    assert {p: p.stat().st_mtime_ns for p in (clips / "out" / "a" / "masks").iterdir()} == before
    assert status(clips / "out")["b"] == "done"


def test_shards_and_workers_write_what_one_run_writes(clips: Path, options: list[str]) -> None:
    (clips / "in" / "b.png").write_bytes((clips / "in" / "a.png").read_bytes())
    words = ["--outputs", "masks", *options]
    assert main(["batch", str(clips / "in"), "-o", str(clips / "one"), *words]) == 0
    for part in ("0/2", "1/2"):
        assert main(["batch", str(clips / "in"), "-o", str(clips / "parts"), "--shard", part, *words]) == 0
    assert main(["batch", str(clips / "in"), "-o", str(clips / "team"), "--workers", "2", *words]) == 0
    assert len(files(clips / "one")) == 12
    assert files(clips / "one") == files(clips / "parts") == files(clips / "team")
    assert len(list((clips / "parts").glob("batch-*.jsonl"))) == 2


def test_a_list_says_frame_direction_and_names(clips: Path, options: list[str]) -> None:
    (clips / "objects.json").write_text('{"1": "left"}')
    (clips / "list.csv").write_text(
        "video,mask,frame,direction,names,name\nin/a,in/a.png,3,backward,objects.json,back\nin/c,in/c.png,,,,\n"
    )
    assert main(["batch", str(clips / "list.csv"), "-o", str(clips / "out"), "--outputs", "masks", "coco", *options]) == 0
    tracks = json.loads((clips / "out" / "back" / "coco.json").read_text())["tracks"]
    assert tracks[0]["name"] == "left"
    given = np.asarray(Image.open(clips / "out" / "back" / "masks" / "00003.png"))
    assert np.array_equal(given, np.asarray(Image.open(clips / "in" / "a.png")))
    assert (clips / "out" / "c" / "run.json").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("video,mask,color\na,b,c\n", "row 1: there is no column 'color'"),
        ("video,mask\na,\n", "row 1 has no mask"),
        ("video,mask,frame\na,b,x\n", "frame is 'x', expected a whole number"),
        ("video,mask,direction\na,b,up\n", "direction is 'up', expected one of"),
        ("video,mask\na/x.mp4,b\nb/x.mp4,b\n", "are both called x"),
        ("video,mask,name\na,b,../x\n", "is no name of a folder"),
    ],
)
def test_mistakes_in_lists_are_told_before_any_work(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text(text)
    assert main(["batch", str(tmp_path / "list.csv"), "-o", str(tmp_path / "out")]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_workers_of_a_cluster_give_the_same_results(
    clips: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A small Ray cluster on this machine; its workers have another working directory, the paths given are relative."""
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.chdir(clips)
    assert main(["batch", "in", "-o", "alone", "--outputs", "masks", *options]) == 1
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        assert main(["batch", "in", "-o", "spread", "--outputs", "masks", "--workers", "2", "--cluster", "auto", *options]) == 1
    finally:
        ray.shutdown()
    assert files(clips / "alone") == files(clips / "spread")
    assert status(clips / "spread") == {"a": "done", "b": "failed", "c": "done"}
