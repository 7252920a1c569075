"""`vosformer inspect`: the numbers are the model's own attention, and the pictures are written."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np
import pytest
import torch
from onevos_small import N, small

from vosformer.cli import main
from vosformer.convert import onevos as adapter
from vosformer.errors import InputError
from vosformer.inference.session import Session
from vosformer.inspection.onevos_attention import inspect_clip
from vosformer.inspection.plots import draw
from vosformer.models.onevos import VARIANTS, Seen
from vosformer.models.simvos import VARIANTS as SIMVOS
from vosformer.policy import DynamicTokens, OneVOSQueue


def clip(frames: int = 6):
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 96), np.int32)
    labels[8:40, 16:64] = 5
    return [(rng.integers(0, 255, (64, 96, 3), np.uint8), labels if t == 0 else None) for t in range(frames)]


def session(model, policy) -> Session:
    return Session(model, device="cpu", dtype="fp32", size=None, memory=policy)


@pytest.mark.parametrize("selector", ["none", "dts", "dts-t"])
def test_looking_changes_nothing(selector):
    """The same masks with and without a probe."""
    model = small(selector=selector)
    plain = session(model, model.policy)
    expected = [plain.step(*frame).labels for frame in clip()]
    found = inspect_clip(session(model, model.policy), clip())
    for view in found.frames:
        assert np.array_equal(view.labels, expected[view.number])
    assert [view.number for view in found.frames] == [1, 2, 3, 4, 5]


def test_numbers_are_the_weights_of_the_softmax():
    """Shares, peaks and maps out of the full score matrix of each layer, written out."""
    model = small()
    kept: list[Seen] = []
    s = session(model, OneVOSQueue(1, 3))
    for image, labels in clip(4):
        kept.clear()
        s.step(image, labels, probe=lambda seen: kept.append(seen._replace(keys=[torch.cat(seen.keys, 1)])))
    found = inspect_clip(session(model, OneVOSQueue(1, 3)), clip(4)).frames[-1]
    covered = torch.from_numpy((found.labels != 0).reshape(4, 16, 6, 16).mean((1, 3)) >= 0.5).flatten()
    covered = covered if covered.any() else torch.ones(N, dtype=torch.bool)
    assert len(kept) == 3
    for seen, layer in zip(kept, found.layers, strict=True):
        q, k = seen.q[0], seen.keys[0][0]
        assert seen.lengths == (2 * N, N, N)
        weights = torch.stack(
            [(a @ b.T / math.sqrt(16)).softmax(1) for a, b in zip(q.split(16, 1), k.split(16, 1), strict=True)]
        )[:, covered]
        parts = weights.split(list(seen.lengths), 2)
        np.testing.assert_allclose(layer.shares, [part.sum(2).mean() for part in parts], rtol=1e-4)
        np.testing.assert_allclose(layer.peaks, [part.amax(2).mean() for part in parts], rtol=1e-4)
        np.testing.assert_allclose(layer.reference.ravel(), parts[1].mean((0, 1)), rtol=1e-3, atol=1e-7)
        np.testing.assert_allclose(layer.current.ravel(), parts[2].mean((0, 1)), rtol=1e-3, atol=1e-7)
        assert layer.shares.sum() == pytest.approx(1, abs=1e-5)
        assert layer.selected.all()
        assert layer.remembered.frame.tolist() == [0] * N + [1] * N  # frame 3 is read; frame 2 is the reference
        assert layer.remembered.position.tolist() == [*range(N)] * 2


def test_selected_tokens_and_where_remembered_ones_come_from():
    model = small(selector="dts")
    for block in model.blocks:
        block.selector.ratio.fill_(0.4)
    found = inspect_clip(session(model, DynamicTokens(1, 3, 6)), clip(8))
    assert 0 < found.ratios.mean() < 1
    chosen = {(view.number, i): layer.selected for view in found.frames for i, layer in enumerate(view.layers)}
    for view in found.frames:
        for i, layer in enumerate(view.layers):
            assert len(layer.remembered.frame) <= round(0.4 * N * 3)
            for number, place in zip(*layer.remembered, strict=True):
                # A frame is the reference of the one after it; its remembered tokens were selected then.
                assert chosen[number + 1, i].flat[place]
            assert (layer.reference[~layer.selected] == 0).all()
    assert set(found.images) >= {0}


@pytest.mark.parametrize("selector", ["none", "dts"])
def test_pictures(selector, tmp_path):
    model = small(selector=selector)
    written = draw(inspect_clip(session(model, model.policy), clip(4)), tmp_path / "out", 2)
    names = {path.name for path in written}
    assert {"shares.png", "peaks.png", "ratios.png", "inspection.json", "attention_00001.png", "memory_00003.png"} <= names
    for path in written:
        if path.suffix == ".png":
            image = cv2.imread(str(path))
            assert image.std() > 5
    numbers = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert len(numbers["layers"]) == 3
    assert sum(numbers["layers"][0]["share"].values()) == pytest.approx(1, abs=1e-4)


def test_more_than_one_slot_and_the_command_line(tmp_path, capsys):
    frames = tmp_path / "clip"
    frames.mkdir()
    labels = np.zeros((64, 96), np.uint8)
    for i in range(12):
        labels[16 * (i // 6) : 16 * (i // 6) + 12, 16 * (i % 6) : 16 * (i % 6) + 12] = i + 1
    for t, (image, _) in enumerate(clip(4)):
        cv2.imwrite(str(frames / f"{t:05d}.png"), image)
    cv2.imwrite(str(tmp_path / "mask.png"), labels)
    torch.manual_seed(0)
    model = VARIANTS["onevos-tiny-d"].build()
    torch.save({"state_dict": adapter.to_official(model.state_dict(), model)}, tmp_path / "w.pth")
    common = [str(frames), "--mask", str(tmp_path / "mask.png"), "-o", str(tmp_path / "out"), "--size", "64", "--dtype", "fp32"]
    common += ["--model", "onevos-tiny-d", "--weights", str(tmp_path / "w.pth")]
    assert main(["inspect", *common, "--frames", "3"]) == 0
    assert (tmp_path / "out" / "selected_00002.png").exists()
    assert "tokens in memory" in capsys.readouterr().err
    assert main(["inspect", *common, "--frames", "1"]) == 2
    assert "at least 2" in capsys.readouterr().err


def test_refusals():
    with pytest.raises(InputError, match="only OneVOS"):
        inspect_clip(session(SIMVOS["simvos-b"].build(tiny=True), "default"), clip(2))
    model = small()
    with pytest.raises(InputError, match="at least two frames"):
        inspect_clip(session(model, model.policy), clip(1))
