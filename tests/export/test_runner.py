"""What the runner does between the graphs, against the same of a session: sizes, pictures, policies, states, refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from export_clip import SIZE, agreement, clip, eager_runner
from hypothesis import given, settings
from hypothesis import strategies as st

from vosformer.export import runner
from vosformer.geometry import MEAN, STD, Geometry, padded
from vosformer.inference.session import Session
from vosformer.nn.small_objects import dilate_small
from vosformer.policy import DynamicTokens, EveryK, FirstAndPrevious, GivenOnly, OneVOSQueue, Policy, Queue, RememberedFrame
from vosformer.registry import new_model

GEOMETRIES = (Geometry(), Geometry(align_corners=False), padded("bilinear"), padded("bicubic"))
POLICIES: tuple[Policy, ...] = (
    GivenOnly(2),
    EveryK(3, 4),
    EveryK(1, 1),
    FirstAndPrevious(),
    FirstAndPrevious(3),
    Queue(2, 3),
    OneVOSQueue(2, 3, 6),
    OneVOSQueue(1, 1, 2),
    DynamicTokens(2, 3),
)


@settings(deadline=None)
@given(st.sampled_from(GEOMETRIES), st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([480, 97, "own", None]))
def test_frames_lie_where_a_session_puts_them(geometry: Geometry, height: int, width: int, size: int | str | None) -> None:
    expected = geometry.place(height, width, size)  # type: ignore[arg-type]
    assert runner.place(asdict(geometry), (height, width), size) == expected


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [(97, 129), (70, 200), (301, 150)])
def test_pictures_are_those_of_a_session(geometry: Geometry, size: tuple[int, int]) -> None:
    frame = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    placement = geometry.place(*size, 96)
    found = runner.network_input(frame, runner.place(asdict(geometry), size, 96), {**asdict(geometry), "mean": MEAN})
    mean, deviation = (torch.tensor(three).view(1, 3, 1, 1) for three in (MEAN, STD))
    normalized = (torch.from_numpy(found) / 255 - mean) / deviation
    torch.testing.assert_close(normalized, geometry.image(frame, placement), atol=1e-4, rtol=0)


@settings(deadline=None)
@given(
    st.sampled_from(POLICIES),
    st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40),
)
def test_policies_decide_alike(policy: Policy, frames: list[tuple[bool, bool]]) -> None:
    about = {"kind": type(policy).__name__, **asdict(policy)}  # type: ignore[call-overload]
    bank: list[RememberedFrame] = []
    last: RememberedFrame | None = None
    for number, (pinned, own) in enumerate([(True, True), *frames]):
        new = RememberedFrame(number, pinned, own)
        expected = policy.plan(bank, last, new)
        found = runner.plan(about, [runner.Frame(*f) for f in bank], last and runner.Frame(*last), runner.Frame(*new))
        assert tuple(found) == tuple(expected)
        bank = [frame for i, frame in enumerate(bank) if i not in expected.drop]
        if expected.bank is not None and (new if expected.bank == "new" else last) is not None:
            bank.append(new if expected.bank == "new" else last)  # type: ignore[arg-type]
        last = new if expected.replace_last else last


@settings(deadline=None)
@given(st.integers(0, 1 << 30))
def test_small_objects_grow_alike(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = np.zeros((40, 60), np.int32)
    for i in range(1, 6):
        y, x, h, w = rng.integers(0, 35), rng.integers(0, 50), rng.integers(1, 12), rng.integers(1, 12)
        labels[y : y + h, x : x + w] = i
    np.testing.assert_array_equal(runner._grow_small(labels), dilate_small(torch.from_numpy(labels)).numpy())


def test_a_state_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = new_model("deaot-t", tiny=True).eval()
    first, second = eager_runner(model, tmp_path, "every-2"), eager_runner(model, tmp_path, "every-2")
    for t, step in enumerate(clip(10)):
        for each in (first,) if t < 6 else (first, second):
            for i in step.gone:
                each.remove(i)
        expected = first.step(step.frame, step.labels, ids=step.ids)
        if t >= 6:
            found = second.step(step.frame, step.labels, ids=step.ids)
            np.testing.assert_array_equal(found.labels, expected.labels)
        if t == 5:
            first.save(tmp_path / "state.npz")
            second.load(tmp_path / "state.npz")
            assert second.ids == first.ids
    first.reset()
    assert first.ids == ()
    (tmp_path / "state.npz").write_bytes(b"broken")
    with pytest.raises(runner.RunnerError, match="holds no state"):
        second.load(tmp_path / "state.npz")


def test_more_objects_than_a_slot_holds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = new_model("aot-t", tiny=True, identities=2).eval()
    session = Session(model, device="cpu", dtype="fp32", size=SIZE, closer="off")
    # Rounding grows from frame to frame in a model with random weights; `agreement` holds the probabilities together, too.
    assert agreement(session, eager_runner(model, tmp_path), 8) > 0.99


def test_refusals(tmp_path: Path) -> None:
    run = eager_runner(new_model("aot-t", tiny=True).eval(), tmp_path)
    frame, labels = np.zeros((50, 60, 3), np.uint8), np.zeros((50, 60), np.int32)
    labels[10:20, 10:20] = 4
    for bad, masks, ids, message in (
        (frame[..., 0], labels, None, "expected uint8"),
        (frame, labels[:10], None, "labels of shape"),
        (frame, None, None, "first frame needs labels"),
        (frame, labels, [3], "not all among"),
        (frame, np.zeros_like(labels), None, "neither tracked"),
    ):
        with pytest.raises(runner.RunnerError, match=message):
            run.step(bad, masks, ids=ids)
    run.step(frame, labels)
    with pytest.raises(runner.RunnerError, match="no object with id 9"):
        run.remove(9)
    with pytest.raises(runner.RunnerError, match="reset"):
        run.step(frame[:40])
    with pytest.raises(runner.RunnerError, match=r"model\.json"):
        runner.Session(tmp_path / "nowhere")
    (tmp_path / "model.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(runner.RunnerError, match="format 7"):
        runner.Session(tmp_path)


def test_it_needs_neither_torch_nor_vosformer() -> None:
    code = (
        "import importlib.util, sys; spec = importlib.util.spec_from_file_location('runner', sys.argv[1]);"
        "module = importlib.util.module_from_spec(spec); sys.modules['runner'] = module; spec.loader.exec_module(module);"
        "assert not {'torch', 'vosformer', 'cv2', 'onnxruntime'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, runner.__file__], check=True)
