"""The command line, as a user calls it: the main job, and a clear error for every mistake of section 7 of the first issue."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dummy_models import flat_clip
from PIL import Image

from vosformer.cli import COMMANDS, main
from vosformer.io import indexed_png, open_source, read_labels
from vosformer.registry import variant
from vosformer.weights import save_weights

TINY = {"tiny": True, "drop_path": 0.0}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A very small model's weights, as a file of ours: it knows how it was built."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(variant("aot-t").build(**TINY), "aot-t", path, overrides=TINY)
    return path


@pytest.fixture
def clip(tmp_path) -> Path:
    """A folder with `frames/` and `mask.png`."""
    images, labels = flat_clip((1, 2), 5, size=(66, 98))
    (tmp_path / "frames").mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "frames" / f"{number:05d}.png")
    (tmp_path / "mask.png").write_bytes(indexed_png(labels[0]))
    return tmp_path


def track(clip: Path, weights: Path, *more: str) -> int:
    words = ["track", str(clip / "frames"), "--mask", str(clip / "mask.png"), "-o", str(clip / "out")]
    settings = ["--model", "aot-t", "--weights", str(weights), "--device", "cpu", "--dtype", "fp32", "--size", "64"]
    return main([*words, *settings, *more])


def fails(capsys, *words: str) -> str:
    """The message of a command that must fail with exit code 2 and no traceback."""
    assert main(list(words)) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert "error:" in printed
    return " ".join(printed.split())


def test_track_writes_masks_overlay_and_scores(clip, weights):
    assert track(clip, weights) == 0
    masks = sorted((clip / "out/masks").glob("*.png"))
    assert [path.name for path in masks] == [f"{n:05d}.png" for n in range(5)]
    assert np.array_equal(read_labels(masks[0]).labels, read_labels(clip / "mask.png").labels)
    assert (clip / "out/overlay.mp4").stat().st_size > 500
    assert len((clip / "out/scores.csv").read_text().splitlines()) == 1 + 5 * 2


def test_every_output_and_both_ways(clip, weights):
    outputs = ("masks16", "objects", "rgba", "cutout", "rle", "scores-json")
    more = ("--outputs", *outputs, "--mask-frame", "2", "--direction", "both", "--max-memory", "5", "--flip")
    assert track(clip, weights, *more) == 0
    out = clip / "out"
    assert len(list((out / "masks16").glob("*.png"))) == 5
    assert len(list((out / "objects/1").glob("*.png"))) == 5
    assert Image.open(out / "rgba/2/00003.png").mode == "RGBA"
    assert open_source(out / "cutout.mov").count == 5
    assert len(json.loads((out / "scores.json").read_text())) == 5
    assert json.loads((out / "rle.json").read_text())


def test_resume_of_a_finished_run_and_of_another(clip, weights, capsys):
    assert track(clip, weights) == 0
    assert track(clip, weights, "--resume") == 0
    assert "5 frames" in capsys.readouterr().err
    assert track(clip, weights, "--resume", "--flip") == 2
    assert "other settings" in " ".join(capsys.readouterr().err.split())


def test_results_are_not_written_over_what_is_read(clip, weights, capsys):
    assert track(clip, weights, "--outputs", "masks") == 0
    words = ["track", str(clip / "frames"), "-o", str(clip / "out"), "--model", "aot-t", "--weights", str(weights)]
    for mask in (clip / "out/masks", clip / "out/masks/00000.png"):
        assert "so it would be overwritten; choose another folder" in fails(capsys, *words, "--mask", str(mask))
    assert track(clip, weights, "--outputs", "masks", "--stop", "3") == 0
    assert "masks held 5 files of a former run: they are in masks.old-1 now" in " ".join(capsys.readouterr().err.split())
    assert len(list((clip / "out/masks").iterdir())) == 3
    assert len(list((clip / "out/masks.old-1").iterdir())) == 5


def test_old_objects_are_not_mixed_with_new_ones(clip, weights, capsys):
    """Case 20: a second run with other objects and fewer frames."""
    assert track(clip, weights, "--outputs", "objects", "sav") == 0
    np.save(clip / "one.npy", np.asarray(read_labels(clip / "mask.png").labels == 1, np.int32))
    assert track(clip, weights, "--outputs", "objects", "sav", "--stop", "3", "--mask", str(clip / "one.npy")) == 0
    said = " ".join(capsys.readouterr().err.split())
    for name, kept in (("objects", "1"), ("sav", "001")):
        assert f"{name} held 10 files of a former run" in said
        assert sorted(path.name for path in (clip / "out" / name).iterdir()) == [kept]
        assert len(list((clip / "out" / name / kept).iterdir())) == 3
        assert len(list((clip / "out" / f"{name}.old-1").rglob("*.png"))) == 10


def test_a_frame_that_is_marked_in_colors_can_be_tracked(clip, weights, capsys):
    assert main(["frame", str(clip / "frames"), "-n", "2", "-o", str(clip / "shown.png")]) == 0
    with Image.open(clip / "shown.png") as shown, Image.open(clip / "frames/00002.png") as frame:
        assert np.array_equal(shown, frame)
    said = " ".join(capsys.readouterr().err.split())
    assert "(128, 0, 0), (0, 128, 0)" in said
    assert "--mask-frame 2" in said
    painted = np.zeros((66, 98, 4), np.uint8)
    painted[10:30, 10:30], painted[10:30, 50:70] = (128, 0, 0, 255), (0, 128, 0, 255)
    Image.fromarray(painted).save(clip / "mask.png")
    assert track(clip, weights, "--mask-frame", "2") == 0
    assert read_labels(clip / "out/masks/00002.png").ids == (1, 2)


def test_frames_that_cannot_be_handed_out(clip, capsys):
    frames = str(clip / "frames")
    assert "99" in fails(capsys, "frame", frames, "-n", "99", "-o", str(clip / "a.png"))
    assert "names no picture format" in fails(capsys, "frame", frames, "-o", str(clip / "a.xyz"))
    before = (clip / "frames/00001.png").read_bytes()
    assert "would become part of the video" in fails(capsys, "frame", frames, "-o", f"{frames}/00001.png")
    (clip / "frames/00001.png").write_bytes(before[:90])
    assert "frame 1 cannot be shown" in fails(capsys, "frame", frames, "-n", "1", "-o", str(clip / "a.png"))
    assert not list(clip.glob("a.*"))


def test_evaluate_scores_results(clip, weights, capsys):
    track(clip, weights)
    assert (
        main(["evaluate", str(clip / "out/masks"), "--truth", str(clip / "out/masks"), "--output", str(clip / "s.json")]) == 0
    )
    assert "J&F" in capsys.readouterr().out
    assert json.loads((clip / "s.json").read_text())
    capsys.readouterr()
    assert main(["evaluate", str(clip / "out/masks"), "--truth", str(clip / "out/masks"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((clip / "s.json").read_text())


def test_tables_in_pipes_keep_names_whole(clip, capsys):
    names = ("a-sequence-with-a-long-name", "another-one-that-goes-on-and-on")
    for root in ("truth", "found"):
        for name in names:
            (clip / root / name).mkdir(parents=True)
            for t in range(3):
                (clip / root / name / f"{t:05d}.png").write_bytes((clip / "mask.png").read_bytes())
    assert main(["evaluate", str(clip / "found"), "--truth", str(clip / "truth")]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--mask", "nowhere.png"], "nowhere.png"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--device", "cuda:9"], "CUDA GPUs"),
        (["--dtype", "fp8"], "no dtype"),
        (["--model", "aot-tt"], "did you mean aot-t"),
        (["--size", "3"], "at least 16"),
        (["--mask-frame", "77"], "77"),
        (["--start", "99"], "99"),
        (["--memory", "goldfish"], "no memory policy"),
        (["--max-memory", "0.00001"], "one remembered frame takes"),
        (["--option", "depth=2"], "no option 'depth'"),
        (["--threads", "0"], "threads"),
    ],
)
def test_mistakes_in_options(clip, weights, capsys, change, message):
    words = ["track", str(clip / "frames"), "--mask", str(clip / "mask.png"), "-o", str(clip / "out")]
    words += ["--model", "aot-t", "--weights", str(weights), "--size", "64", *change]
    assert message in fails(capsys, *words)


def test_a_weights_file_is_no_model(clip, capsys):
    message = fails(
        capsys, "track", str(clip / "clip.mp4"), "--mask", "m.png", "-o", str(clip / "o"), "--model", "w.safetensors"
    )
    assert "give it with --weights" in message


def test_a_model_without_weights_is_refused(clip, capsys):
    words = ["track", str(clip / "frames"), "--mask", str(clip / "mask.png"), "-o", str(clip / "out"), "--model", "r50-aot-l"]
    assert "--weights" in fails(capsys, *words)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "video.mp4"), (b"", "video.mp4"), (b"<html>not found</html>", "video.mp4"), (os.urandom(5000), "video.mp4")],
)
def test_missing_and_broken_videos(clip, weights, capsys, content, message):
    video = clip / "video.mp4"
    if content is not None:
        video.write_bytes(content)
    words = ["track", str(video), "--mask", str(clip / "mask.png"), "-o", str(clip / "out"), "--weights", str(weights)]
    assert message in fails(capsys, *words, "--model", "aot-t")


def test_files_of_a_pattern_that_the_shell_expanded(clip, capsys):
    frames = sorted(map(str, (clip / "frames").iterdir()))[:3]
    for words in (("track", *frames, "--mask", "m.png"), ("track", "--mask", "m.png", *frames), ("frame", *frames, "-n", "0")):
        said = fails(capsys, *words)
        assert "3 files were given" in said
        assert f"their folder ({clip / 'frames'})" in said
        assert "*.png'" in said


def test_bad_masks(clip, weights, capsys):
    def refused(array: np.ndarray) -> str:
        Image.fromarray(array).save(clip / "mask.png")
        assert track(clip, weights) == 2
        return " ".join(capsys.readouterr().err.split())

    assert "66" in refused(np.ones((50, 98), np.uint8))
    assert "mask.png" in refused(np.zeros((66, 98), np.uint8))
    soft = np.linspace(0, 255, 66 * 98).astype(np.uint8).reshape(66, 98)
    assert "mask.png" in refused(soft)


def test_three_hundred_objects(clip, weights, capsys):
    """They are tracked; an 8-bit PNG cannot hold their ids and says so before any work is done."""
    labels = np.zeros((66, 98), np.uint16)
    for n in range(300):
        labels[4 * (n // 19) : 4 * (n // 19) + 4, 5 * (n % 19) : 5 * (n % 19) + 5] = n + 1
    Image.fromarray(labels).save(clip / "mask.png")
    assert track(clip, weights) == 2
    assert "16-bit PNG" in " ".join(capsys.readouterr().err.split())
    assert track(clip, weights, "--outputs", "masks16", "--stop", "2") == 0
    assert len(np.unique(read_labels(clip / "out/masks16/00000.png").labels)) == 301


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(clip, weights, capsys):
    (clip / "out").mkdir(mode=0o500)
    assert track(clip, weights) == 2
    assert "out" in capsys.readouterr().err


def test_an_output_that_is_a_file(clip, weights, capsys):
    (clip / "out").write_text("here first")
    assert track(clip, weights) == 2
    assert "out" in capsys.readouterr().err
    assert (clip / "out").read_text() == "here first"


def test_a_full_disk(clip, weights, capsys, monkeypatch):
    """What was written before stays valid, and nothing half-written is left."""
    replace, calls = os.replace, []

    def full(source, target):
        if str(target).endswith(".png"):
            calls.append(target)
            if len(calls) > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    assert track(clip, weights, "--outputs", "masks") == 2
    assert "the disk is full" in capsys.readouterr().err
    written = list((clip / "out/masks").iterdir())
    assert len(written) == 3
    assert all(read_labels(path, allow_empty=True).labels.shape == (66, 98) for path in written)


def test_weights_that_hold_text_or_code(clip, tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (os.system, (f"touch {tmp_path}/ran",))

    torch.save({"state_dict": Evil()}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("hello")
    for name in ("evil.pth", "text.pth"):
        assert track(clip, tmp_path / name) == 2
        assert name in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_help_and_unknown_commands(capsys):
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in COMMANDS)
    assert main(["weights"]) == 2
    assert main(["trakc"]) == 2
    assert "trakc" in capsys.readouterr().err
    assert main(["--version"]) == 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    assert "usage" in capsys.readouterr().out


def test_a_list_may_be_given_in_parts(capsys):
    words = ["train", "aot-main", "--set", "run.seed=7", "data.crop=81", "--device", "cpu", "--set", "model.options=tiny:true"]
    assert main([*words, "--set=run.steps=12", "--dry-run"]) == 0
    plan = " ".join(capsys.readouterr().out.split())
    assert all(said in plan for said in ("run.seed 7 ", "data.crop 81 ", "run.steps 12 "))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("variants", "--names", "aot-t", "--objects", "0"), "--objects is 0, expected at least 1"),
        (("demo", "--frames", "2"), "--frames is 2, expected at least 3"),
    ],
)
def test_numbers_that_are_too_small(capsys, words, message):
    assert message in fails(capsys, *words)


def test_recipes_are_listed_with_every_setting(capsys):
    assert main(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("aot-pre", "onevos-dts", "finetune"))
    assert main(["recipes", "--names", "simvos-main", "--json"]) == 0
    (settings,) = json.loads(capsys.readouterr().out).values()
    assert settings["run.steps"] == 210_000
    assert main(["recipes", "--names", "simvos-mian"]) == 2
    assert "did you mean simvos-main" in capsys.readouterr().err


def test_variants_lists_costs(capsys):
    assert main(["variants", "--names", "deaot-t", "simvos-tiny", "--json"]) == 0
    costs = json.loads(capsys.readouterr().out)
    assert [cost["name"] for cost in costs] == ["deaot-t", "simvos-tiny"]
    assert costs[0]["parameters"] == 7_238_188 or abs(costs[0]["parameters"] - 7.24e6) < 5e4
    assert costs[0]["gflop"] > 40
    assert main(["variants", "--brief"]) == 0
    assert "onevos-b" in capsys.readouterr().out


def test_variants_and_recipes_of_installed_packages_are_known(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from functools import partial\n"
        "from vosformer import register, variants\n"
        "from vosformer.registry import Variant, variant\n"
        "from vosformer.train import recipes\n"
        "from dataclasses import replace\n"
        "register(Variant('mine-t', 'aot', partial(variant('aot-t').build, tiny=True), 'of my own'))\n"
        "recipes.register_recipe(replace(recipes.recipe('aot-pre'), name='mine-pre', paper='a paper of my own'))\n"
    )
    about = tmp_path / "mine-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[vosformer.variants]\nmine = mine\nbroken = not_there\n")
    command = [sys.executable, "-m", "vosformer", "train", "mine-pre", "--variant", "mine-t", "--dry-run", "--device", "cpu"]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "mine-t" in done.stdout
    assert "a paper of my own" in done.stdout
    assert "not_there, an entry point of vosformer.variants, cannot be loaded" in done.stderr


def test_debug_shows_the_traceback(clip, weights):
    words = [sys.executable, "-m", "vosformer", "--debug", "track", "nowhere.mp4", "--mask", "x.png", "-o", str(clip / "out")]
    done = subprocess.run([*words, "--weights", str(weights), "--model", "aot-t"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "Traceback" in done.stderr
    assert "InputError" in done.stderr
