"""What a composed scene shows: camera, motion, deformation, blur and light, each seen in the picture and in the masks."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vosformer.data.synthetic.assets import Assets
from vosformer.data.synthetic.compose import ComposeConfig, random_scene
from vosformer.data.synthetic.motion import Bend, Curve, Motion, bending, still
from vosformer.data.synthetic.scene import Light, Scene, SceneLayer, StillBackdrop, VideoBackdrop, paste, shift, stretch

SIZE = (60, 80)
NONE = Curve()


def moving(x: Curve = NONE, y: Curve = NONE, angle: Curve = NONE, log_scale: Curve = NONE) -> Motion:
    return Motion(x, y, angle, log_scale, NONE, NONE)


def square(side: int = 20) -> np.ndarray:
    """Opaque, red."""
    patch = np.zeros((side, side, 4), np.uint8)
    patch[..., 0] = patch[..., 3] = 255
    return patch


def pasted(
    time: int = 0, camera: np.ndarray | None = None, motion: Motion | None = None, **layer
) -> tuple[np.ndarray, np.ndarray]:
    image, labels = np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.uint8)
    thing = SceneLayer(lambda t: square(), 3, motion or still(), **layer)
    paste(image, labels, thing, time, np.eye(3) if camera is None else camera)
    return image, labels


def center(labels: np.ndarray) -> list[float]:
    """(x, y) of what is labeled."""
    return [float(places.mean()) for places in np.nonzero(labels)[::-1]]


def backdrop(camera: Motion) -> StillBackdrop:
    """Gray, with an object of 10 x 10 pixels in the middle."""
    picture, labels = np.full((*SIZE, 3), 90, np.uint8), np.zeros(SIZE, np.uint8)
    picture[25:35, 35:45], labels[25:35, 35:45] = 220, 1
    return StillBackdrop(picture, labels, camera, SIZE, 1.0)


def test_the_camera_moves_the_backdrop_its_labels_and_what_is_in_the_world():
    pan = moving(x=Curve(0, 0.1))  # a tenth of the short side a frame
    image, labels, camera = backdrop(pan).frame(2)
    assert center(labels == 1) == [39.5 + 12, 29.5]
    np.testing.assert_array_equal(labels == 1, image[..., 0] > 155)
    world, screen = (center(pasted(2, camera, world=way)[1]) for way in (True, False))
    assert world == [screen[0] + 12, screen[1]]


def test_the_camera_zooms_and_rolls():
    zoomed = backdrop(moving(log_scale=Curve(np.log(2)))).frame(0)[1]
    assert (zoomed == 1).sum() == pytest.approx(400, rel=0.1)
    rolled = backdrop(moving(angle=Curve(np.pi / 4))).frame(0)[1]
    rows, columns = np.nonzero(rolled)
    assert (rolled == 1).sum() == pytest.approx(100, rel=0.1)
    assert np.ptp(rows) + 1 == pytest.approx(10 * np.sqrt(2), abs=2)
    assert np.ptp(columns) + 1 == pytest.approx(10 * np.sqrt(2), abs=2)


def test_objects_turn_and_grow():
    assert (pasted(motion=moving(log_scale=Curve(0, 0.1)), time=5)[1] == 3).sum() == pytest.approx(400 * np.e, rel=0.1)
    rows = np.nonzero(pasted(motion=moving(angle=Curve(0, 0.1)), time=8)[1])[0]
    assert np.ptp(rows) + 1 == pytest.approx(20 * (np.sin(0.8) + np.cos(0.8)), abs=2)


def test_deformation_bends_picture_and_mask_alike_and_goes_on_over_time():
    frames = [pasted(time, wobble=(0.15, 1.0, 20.0)) for time in (0, 5)]
    for image, labels in frames:
        np.testing.assert_array_equal(labels == 3, image[..., 0] > 127)
        assert 200 < (labels == 3).sum() < 600
    straight = pasted()[1]
    assert all((labels != straight).sum() > 30 for _, labels in frames)
    assert (frames[0][1] != frames[1][1]).sum() > 30


def test_a_bend_moves_its_points_as_they_sway():
    sway = np.array([[0.1, 0.0], [0.0, 0.05], [0.02, 0.03]])
    bend = Bend(np.array([[0.1, 0.2], [0.8, 0.3], [0.4, 0.9]]), sway, np.full((3, 2), 20.0), np.zeros((3, 2)))
    x, y = (np.asarray(axis, np.float32)[None] for axis in ((bend.centers * [80, 60]).T))
    np.testing.assert_allclose(bend.offsets(5, x, y, (60, 80))[0], sway * 80, atol=0.1)  # a quarter of the period: the farthest
    np.testing.assert_allclose(bend.offsets(10, x, y, (60, 80)), 0, atol=1e-4)
    assert bend.reach == pytest.approx(0.1)


def test_bending_takes_picture_and_mask_along():
    bend = bending(np.random.default_rng(1), 0.1)
    image, labels = pasted(3, bend=bend)
    np.testing.assert_array_equal(labels == 3, image[..., 0] > 127)
    assert (labels != pasted(3)[1]).sum() > 30
    flat = np.zeros((120, 160), np.uint8)
    flat[40:80, 50:110] = 200
    bent = StillBackdrop(flat[..., None].repeat(3, 2), flat, still(), SIZE, bend=bend)
    image, labels, _ = bent.frame(3)
    assert (abs(image[..., 0].astype(int) - labels) > 110).mean() < 0.01
    assert (labels != bent.frame(9)[1]).sum() > 20


def test_motion_blur_smears_along_the_motion_and_leaves_the_mask():
    rightwards = moving(x=Curve(0, 0.2))  # 12 pixels a frame
    sharp, blurred = (pasted(motion=rightwards, shutter=shutter) for shutter in (0.0, 0.8))
    np.testing.assert_array_equal(sharp[1], blurred[1])

    def soft(image: np.ndarray) -> np.ndarray:
        """Which pixels are neither red nor black."""
        return (image[..., 0] > 5) & (image[..., 0] < 250)

    assert not soft(sharp[0]).any()
    inside = slice(25, 35)
    assert soft(blurred[0])[inside].sum(1).min() >= 12  # at both ends of each row
    assert not soft(blurred[0])[:, 40].any()  # but not above and below
    assert not soft(pasted(motion=moving(x=Curve(0, 0.01)), shutter=0.8)[0]).any()  # slow things stay sharp


LIGHTS = {
    "exposure": Light(exposure=Curve(0.7)),
    "tint": Light(tint=(0.8, 1.0, 1.2)),
    "gamma": Light(gamma=1.4),
    "ramp": Light(ramp=(0.3, 0.0)),
    "blur": Light(blur_px=1.2),
    "noise": Light(noise=6.0),
}


@pytest.mark.parametrize("name", LIGHTS)
def test_each_change_of_light_is_seen_and_leaves_the_masks(name):
    plain, lit = (
        Scene(backdrop(still()), (), light, SIZE).render(0, np.random.default_rng(0)) for light in (Light(), LIGHTS[name])
    )
    np.testing.assert_array_equal(plain[1], lit[1])
    before, after = plain[0].astype(int), lit[0].astype(int)
    change = after - before
    if name == "exposure":
        np.testing.assert_allclose(after, 0.7 * before, atol=1)
    elif name == "tint":
        assert (change[..., 0] < 0).all()
        assert (change[..., 1] == 0).all()
        assert (change[..., 2] > 0).all()
    elif name == "gamma":
        np.testing.assert_allclose(after, 255 * (before / 255) ** 1.4, atol=1)
    elif name == "ramp":
        assert change[:, :20].max() < 0 < change[:, 60:].min()
    elif name == "blur":
        assert (change[25:35, 35] < 0).all()
        assert not change[:15].any()
    else:
        assert change.std() == pytest.approx(6, rel=0.15)


def test_light_changes_over_time():
    scene = Scene(backdrop(still()), (), Light(exposure=Curve(1.0, -0.05)), SIZE)
    means = [scene.render(time, np.random.default_rng(0))[0].mean() for time in range(4)]
    assert all(later < earlier for earlier, later in pairwise(means))


class Numbers:
    """A video of 4 frames whose gray value tells which one it is."""

    def __len__(self) -> int:
        return 4

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return np.full((30, 40, 3), 50 * index, np.uint8), np.full((30, 40), index + 1, np.uint8)


def test_a_clip_goes_on_behind_the_layers_and_turns_back_at_its_end():
    clip = VideoBackdrop(Numbers(), 1, stretch(2.0) @ shift(-20, -15), still(), SIZE)
    frames = [clip.frame(time) for time in range(5)]
    assert [int(image.mean()) // 50 for image, _, _ in frames] == [1, 2, 3, 2, 1]
    assert [sorted(np.unique(labels)) for _, labels, _ in frames] == [[2], [3], [4], [3], [2]]


def test_random_scenes_have_all_of_it_now_and_then():
    config = ComposeConfig(SIZE)
    scenes = [random_scene(np.random.default_rng(seed), Assets(), config) for seed in range(300)]
    layers = [layer for scene in scenes for layer in scene.layers]
    shares = {
        "wobble": np.mean([layer.wobble[0] > 0 for layer in layers]),
        "shutter": np.mean([layer.shutter > 0 for layer in layers]),
        "world": np.mean([layer.world for layer in layers]),
        "unlabeled": np.mean([layer.label == 0 for layer in layers]),
        "waving exposure": np.mean([bool(scene.light.exposure.waves) for scene in scenes]),
        "gamma": np.mean([scene.light.gamma != 1 for scene in scenes]),
        "ramp": np.mean([scene.light.ramp[0] > 0 for scene in scenes]),
        "blur": np.mean([scene.light.blur_px > 0 for scene in scenes]),
        "noise": np.mean([scene.light.noise > 0 for scene in scenes]),
    }
    expected = {
        "wobble": 0.6,
        "shutter": 0.5,
        "world": 0.7,
        "unlabeled": 0.3,
        "waving exposure": 0.3,
        "gamma": 0.3,
        "ramp": 0.3,
        "blur": 0.12,
        "noise": 0.15,
    }
    assert shares == pytest.approx(expected, abs=0.08)
