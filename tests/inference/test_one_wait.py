"""A step waits once for the device, when its masks are there, and takes over nothing but the frame."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
from dummy_models import ColorModel
from pretended_device import DEVICE, PretendedDevice, moved_there

from vosformer import Session
from vosformer.protocol import VOSModel
from vosformer.testing import COLORS, moving_squares, tiny_model

SYSTEMS = ("aot-t", "aot-l", "aost", "deaot-l", "simvos-b", "jointformer-b", "onevos-b")


def sessions(model: VOSModel, size: int = 64, **settings) -> tuple[Session, Session]:
    """One on the CPU, and one on the pretended device."""
    here, there = (Session(deepcopy(model), device="cpu", dtype="fp32", size=size, tune=False, **settings) for _ in range(2))
    moved_there(there._model)
    there._setup = replace(there._setup, device=DEVICE)
    return here, there


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_step_waits_once_and_takes_over_the_frame_alone(name):
    here, there = sessions(tiny_model(name))
    images, labels = moving_squares((1, 2, 5), 5)
    for n, image in enumerate(images):
        given = labels[n] if n in (0, 3) else None
        expected = here.step(image, given)
        with PretendedDevice() as device:
            out = there.step(image, given)
            waits, uploads = list(device.down), list(device.up)
            scores = [out.score(i) for i in out.ids]
        if n > 1:  # tables of positions are made and moved once
            assert len(waits) == 1, waits
            assert len(uploads) == (1 if given is None else 2 if there._model.feedback == "hard" else 3), uploads
        assert (out.labels != expected.labels).mean() < 2e-3
        assert np.allclose(scores, [expected.score(i) for i in out.ids], atol=1e-4)


def test_islands_are_left_out_within_the_one_wait():
    here, there = sessions(ColorModel(), islands="drop")
    images, truth = moving_squares((1, 2), 4)
    images[2] = images[2].copy()
    images[2][-8:, -8:] = COLORS[0]
    for n, image in enumerate(images):
        labels = truth[0] if n == 0 else None
        expected = here.step(image, labels)
        with PretendedDevice() as device:
            out = there.step(image, labels)
        if n > 1:
            assert len(device.down) == 1, device.down
        assert (out.islands is not None) == (n == 2)
        assert np.array_equal(out.labels, expected.labels)


def test_a_window_that_looks_closer_waits_once_more():
    here, there = sessions(ColorModel(), size=48, closer=4)
    for t in range(4):
        image, labels = np.full((192, 256, 3), 110, np.uint8), np.zeros((192, 256), np.int32)
        place = slice(20, 31), slice(20 + 3 * t, 31 + 3 * t)
        image[place], labels[place] = COLORS[1], 2
        expected = here.step(image, labels if t == 0 else None)
        with PretendedDevice() as device:
            out = there.step(image, labels if t == 0 else None)
        assert len(here.notes) == 1
        if t:
            assert len(device.down) == 2, device.down
            assert len(device.up) == 2, device.up  # the frame, and the window
        assert np.array_equal(out.labels, expected.labels)


def test_the_pretended_device_notices_what_waits():
    with PretendedDevice() as device, torch.inference_mode():
        x = torch.arange(4.0).to(DEVICE)
        assert x.device.type == DEVICE.type
        assert (len(device.down), len(device.up)) == (0, 1)
        assert (x + 1).sum().item() == 10
        assert x[x > 1].tolist() == [2, 3]
        assert len(device.down) == 3  # a number, how many, and which
        assert x[[0, 2]].shape == (2,)
        assert len(device.up) == 2
        with pytest.raises(RuntimeError, match="two devices"):
            x + torch.ones(4)
