"""Input sizes: the exact numbers of the released code, and what a user asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dummy_models import flat_clip

from vosformer.cli import main
from vosformer.geometry import MEAN, STD, Geometry, padded
from vosformer.inference.session import Session
from vosformer.io.labels import read_labels
from vosformer.registry import variant

ALIGNED = ["aot-t", "aost", "deaot-t"]


def geometry(name: str) -> Geometry:
    with torch.device("meta"):
        return variant(name).build(tiny=True).geometry


@pytest.mark.parametrize("name", ALIGNED)
@pytest.mark.parametrize(
    ("source", "network"),
    [
        ((480, 854), (481, 849)),
        ((480, 910), (481, 913)),
        ((720, 1280), (577, 1041)),
        ((720, 960), (721, 961)),
        ((1080, 1920), (577, 1041)),
        ((1280, 720), (1041, 577)),
        ((48, 64), (49, 65)),
    ],
)
def test_own_size_of_systems_that_align_corners(name, source, network):
    """Only the long side is limited, to 1040; nothing is enlarged but by rounding to 16k+1."""
    assert geometry(name).place(*source, "own").network == network


@pytest.mark.parametrize(
    ("source", "network"), [((480, 854), (480, 848)), ((720, 1280), (592, 1040)), ((720, 960), (720, 960))]
)
def test_own_size_of_swin_and_onevos(source, network):
    for own in (geometry("onevos-b"), Geometry("resize", False)):
        assert own.place(*source, "own").network == network


def test_own_size_in_multi_scale_testing():
    """Then the short side is limited, too, to 624, and the scale comes after: MultiRestrictSize of the released code."""
    own = geometry("aot-t")
    assert own.place(480, 854, "own", 1.3).network == (625, 1105)
    assert own.place(720, 1280, "own", 1.2).network == (705, 1249)
    assert own.place(720, 960, "own", 1.2).network == (753, 993)  # 748 x 998; without the limit 865 x 1153


@pytest.mark.parametrize("name", ["simvos-b", "jointformer-b"])
@pytest.mark.parametrize(
    ("source", "inner", "network"),
    [
        ((480, 854), (480, 854), (480, 864)),
        ((720, 1280), (480, 853), (480, 864)),
        ((360, 640), (480, 853), (480, 864)),
        ((1013, 1013), (480, 480), (480, 480)),  # 1013 * (480 / 1013) is 479.99...
        ((1920, 1080), (853, 480), (864, 480)),
    ],
)
def test_own_size_of_per_object_systems(name, source, inner, network):
    """The short side becomes 480, up and down; the long one is cut to a whole number, as torchvision does."""
    placement = geometry(name).place(*source, "own")
    assert placement.inner == inner
    assert placement.network == network


def test_every_short_side_becomes_exactly_what_was_asked_for():
    for side in range(1, 2200):
        assert padded("bilinear").place(side, side, 480).inner == (480, 480)


@pytest.mark.parametrize(("name", "mode"), [("simvos-b", "bicubic"), ("jointformer-b", "bilinear")])
@pytest.mark.parametrize("source", [(720, 1280), (96, 128)])
def test_per_object_systems_resample_normalized_values_without_antialias(name, mode, source):
    frame = np.random.default_rng(3).integers(0, 256, (*source, 3), np.uint8)
    own = geometry(name)
    placement = own.place(*source, "own")
    normalized = (torch.from_numpy(frame) / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    expected = F.interpolate(normalized.permute(2, 0, 1)[None], placement.inner, mode=mode, align_corners=False)
    found = own.image(frame, placement)
    top, left = placement.top, placement.left
    inside = found[..., top : top + placement.inner[0], left : left + placement.inner[1]]
    torch.testing.assert_close(inside, expected, rtol=0, atol=2e-5)
    smooth = F.interpolate(normalized.permute(2, 0, 1)[None], placement.inner, mode=mode, align_corners=False, antialias=True)
    if source[0] > 480:
        assert (smooth - inside).abs().mean() > 0.2


@pytest.mark.parametrize(
    ("source", "size", "network"),
    [
        ((480, 854), 480, (481, 849)),
        ((720, 1280), 480, (481, 849)),
        ((48, 64), 480, (481, 641)),
        ((480, 854), 960, (961, 1713)),
        ((480, 1920), 480, (257, 1041)),
        ((48, 64), None, (49, 65)),
        ((720, 1280), None, (721, 1281)),
    ],
)
def test_a_size_that_is_asked_for_is_the_short_side_up_and_down(source, size, network):
    assert geometry("aot-t").place(*source, size).network == network


def test_a_long_strip_is_not_enlarged_without_bound():
    assert padded("bilinear").place(16, 4000, 480).inner == (16, 4000)
    assert padded("bilinear").place(960, 8000, 480).inner == (480, 4000)
    assert geometry("aot-t").place(16, 4000, 480).network == (17, 1041)


def test_a_session_tells_what_the_model_sees_and_answers_at_the_source_size():
    model = variant("aot-t").build(tiny=True)
    images, labels = flat_clip((1,), 2, (24, 40))
    for size, seen in ((48, (49, 81)), ("own", (17, 33)), (None, (17, 33)), (np.int64(32), (33, 49))):
        session = Session(model, device="cpu", dtype="fp32", size=size)
        assert session.sizes is None
        session.step(images[0], labels[0])
        out = session.step(images[1])
        assert session.sizes == ((24, 40), seen)
        assert out.labels.shape == (24, 40)


@pytest.mark.slow
def test_a_clip_of_64_pixels_is_followed(tmp_path, capsys):
    """Two objects of a few pixels: seen as they are, both are lost at once; enlarged, they stay."""
    clip = Path(__file__).parents[1] / "fixtures/small_clip"
    words = ["track", str(clip / "frames"), "--mask", str(clip / "masks/00000.png"), "-o", str(tmp_path), "--outputs", "masks"]
    assert main(words) == 0
    assert "the model saw the 64 x 48 frames as 641 x 481 (--size 480)" in " ".join(capsys.readouterr().err.split())
    truth = [read_labels(path).labels for path in sorted((clip / "masks").iterdir())[1:]]
    found = [read_labels(path).labels for path in sorted((tmp_path / "masks").iterdir())[1:]]
    for i in (1, 2):
        assert (
            np.mean([((a == i) & (b == i)).sum() / ((a == i) | (b == i)).sum() for a, b in zip(truth, found, strict=True)])
            > 0.75
        )
