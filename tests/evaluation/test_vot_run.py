"""VOT's multi-start protocol: which frames a tracker sees, what is written, real time, sharing, and the toolkit's binary files."""

from __future__ import annotations

import struct
from functools import partial

import numpy as np
import pytest
from oracle import DeadlyOracle, Oracle, SlowOracle
from PIL import Image

from vosformer.cli import main
from vosformer.errors import DataError, InputError
from vosformer.evaluation import evaluate_vot
from vosformer.evaluation.vot_files import encode_region
from vosformer.evaluation.vot_run import RealTime, run_vot

SIZE = (20, 30)
LENGTHS = (2, 12)


def mask_at(t):
    mask = np.zeros(SIZE, bool)
    mask[2 + t % 5 : 12, 3 + t % 3 : 14] = True
    return mask


@pytest.fixture
def workspace(tmp_path):
    """Two sequences of 20 frames whose red channel is the truth; runs from frame 0 on and from frame 15 back."""
    root = tmp_path / "workspace"
    for name in ("v", "w"):
        folder = root / "sequences" / name
        (folder / "color").mkdir(parents=True)
        truth = [mask_at(t) for t in range(20)]
        for t, mask in enumerate(truth, 1):
            image = np.dstack([mask, np.full_like(mask, t, np.uint8), mask * 0]).astype(np.uint8)
            Image.fromarray(image).save(folder / "color" / f"{t:08d}.jpg", "PNG")
        (folder / "groundtruth.txt").write_text("\n".join(encode_region(mask) for mask in truth))
        (folder / "sequence").write_text(
            f"name={name}\nfps=25\nwidth={SIZE[1]}\nheight={SIZE[0]}\nchannels.color=color/%08d.jpg\n"
        )
        (folder / "anchor.value").write_text("\n".join(["1"] + ["0"] * 14 + ["-1"] + ["0"] * 4))
    (root / "sequences" / "list.txt").write_text("v\nw\n")
    return root


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*_000000??.txt")}


def test_runs_from_every_anchor(workspace, tmp_path):
    """Both ways from the anchors; a run that is there is not run again."""
    session = Oracle()
    report = run_vot(workspace, lambda: session, tmp_path / "out", lengths=LENGTHS)
    there_and_back = [list(range(1, 21)), list(range(16, 0, -1))]
    assert [[t for t, _ in clip] for clip in session.clips] == 2 * there_and_back
    assert [clip[0][1] for clip in session.clips] == 4 * [[1]]
    assert report.robustness == report.eao == 1
    assert report.accuracy == pytest.approx(34 / 36)  # the first frame of each run counts 0
    folder = tmp_path / "out" / "vosformer" / "baseline"
    assert len((folder / "v" / "v_00000015_time.value").read_text().split()) == 16
    before = files(folder)
    (folder / "v" / "v_00000015.txt").unlink()
    again = Oracle()
    with pytest.raises(InputError, match="already holds"):
        run_vot(workspace, lambda: again, tmp_path / "out", lengths=LENGTHS)
    with pytest.raises(InputError, match="other settings"):
        run_vot(workspace, lambda: again, tmp_path / "out", lengths=LENGTHS, resume=True, settings={"size": 480})
    assert run_vot(workspace, lambda: again, tmp_path / "out", lengths=LENGTHS, resume=True).eao == 1
    assert len(again.clips) == 1
    assert files(folder) == before


def test_workers_and_shards_give_what_one_gives(workspace, tmp_path):
    run_vot(workspace, Oracle, tmp_path / "one", lengths=LENGTHS)
    expected = files(tmp_path / "one")
    deadly = partial(DeadlyOracle, tmp_path / "killed")
    report = run_vot(workspace, deadly, tmp_path / "many", lengths=LENGTHS, workers=2)
    assert report.eao == 1
    assert (tmp_path / "killed").exists()
    assert files(tmp_path / "many") == expected
    assert run_vot(workspace, Oracle, tmp_path / "parts", lengths=LENGTHS, part="0/2") is None
    assert run_vot(workspace, Oracle, tmp_path / "parts", lengths=LENGTHS, part="1/2").eao == 1
    assert files(tmp_path / "parts") == expected


def test_real_time_misses_frames():
    """At 10 frames a second: three late answers are forgiven, then what takes 0.25 s misses two frames, as in the toolkit."""
    clock, seen = RealTime(10), []
    clock.took(0.5)  # the initialization counts, too
    for t in range(1, 12):
        if not clock.misses():
            seen.append(t)
            clock.took(0.25)
    assert seen == [1, 2, 3, 5, 7, 9, 11]
    clock, seen = RealTime(10, grace=0), []
    clock.took(0.05)
    for t in range(1, 8):
        if not clock.misses():
            seen.append(t)
            clock.took(0.35 if t == 1 else 0.1)
    assert seen == [1, 4, 5, 6, 7]


def test_in_real_time_the_last_answer_stands_for_missed_frames(workspace, tmp_path):
    session = SlowOracle(0.1)  # more than two frames' time
    report = run_vot(workspace, lambda: session, tmp_path / "out", experiment="realtime", lengths=LENGTHS)
    seen = [t for t, _ in session.clips[0]]
    assert seen[:4] == [1, 2, 3, 4]
    assert len(seen) < 14
    assert report.eao < 1
    folder = tmp_path / "out" / "vosformer" / "realtime" / "v"
    lines = (folder / "v_00000000.txt").read_text().split()
    seconds = [float(value) for value in (folder / "v_00000000_time.value").read_text().split()]
    assert lines[0] == "1"
    for t in range(1, 20):
        stands = max(s for s in seen if s <= t + 1) - 1
        assert lines[t] == encode_region(mask_at(stands))
        assert (seconds[t] == 0) is (t + 1 not in seen)


def binary(lines):
    """A run as the toolkit writes it by default."""
    out = struct.pack("<hI", 1, len(lines))
    for line in lines:
        if line.startswith("m"):
            left, top, width, height, *runs = map(int, line[1:].split(","))
            out += struct.pack(f"<BhhHHH{len(runs)}H", 3, left, top, width, height, len(runs), *runs)
        else:
            out += struct.pack("<BI", 0, int(line))
    return out


def test_the_toolkits_binary_files_are_read(workspace, tmp_path):
    run_vot(workspace, Oracle, tmp_path / "out", lengths=LENGTHS)
    folder = tmp_path / "out" / "vosformer" / "baseline"
    expected = evaluate_vot(folder, workspace, *LENGTHS)
    for path in folder.rglob("*_000000??.txt"):
        path.with_suffix(".bin").write_bytes(binary(path.read_text().split()))
        path.unlink()
    assert evaluate_vot(folder, workspace, *LENGTHS).to_dict() == expected.to_dict()
    cut = folder / "v" / "v_00000015.bin"
    cut.write_bytes(cut.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"v_00000015\.bin cannot be read"):
        evaluate_vot(folder, workspace, *LENGTHS)


def test_the_command(workspace, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--model", "default-fast", "--size", "48"]
    assert main(["benchmark", "vot-st", str(workspace), "-o", str(out), *arguments, "--shard", "0/1"]) == 0
    assert (out / "scores-baseline.json").is_file()
    assert main(["evaluate", str(out / "vosformer" / "baseline"), "--truth", str(workspace), "--rules", "vot"]) == 0
    assert main(["benchmark", "vot-st", str(workspace), "-o", str(out), *arguments]) == 2
    assert "already holds" in capsys.readouterr().err
