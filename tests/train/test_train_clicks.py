"""Training the click network: simulated clicks, the loss, the samples, and the trainer's exact resume."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from vosformer.cli import main
from vosformer.data.object_crops import ObjectCrops, Zoom
from vosformer.errors import DataError, InputError, WeightsError
from vosformer.prompts.distance import squared_distance
from vosformer.prompts.maps import CHANNELS, prompt_maps
from vosformer.prompts.network import ClickNetwork
from vosformer.prompts.simulate import next_click
from vosformer.prompts.weights import load_network
from vosformer.train.batch import Batch, generator
from vosformer.train.clicks import ClickTraining, damaged, first_prompt, normalized_focal, soft_jaccard
from vosformer.train.recipe import Clicks, Recipe
from vosformer.train.recipes import recipe as find_recipe
from vosformer.train.tasks import task_of
from vosformer.train.trainer import Trainer


def small(steps: int = 3) -> Recipe:
    found = find_recipe("clicks").shortened(steps)
    model = replace(found.model, options=(("width", 48), ("heads", 2)))
    run = replace(found.run, batch=2, save_every=1, log_every=1)
    clicks = replace(found.clicks, rounds=(0.3, 0.7))
    return replace(found, model=model, run=run, clicks=clicks, data=replace(found.data, crop=64))


def trainer(folder, recipe: Recipe) -> Trainer:
    task = task_of(recipe)
    return Trainer(task.build(recipe, None), recipe, task.data(recipe, ["composed"]), folder)


def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path):
    whole = trainer(tmp_path / "whole", small()).run()
    broken = trainer(tmp_path / "broken", small())
    broken.stop()  # after the step under way
    assert broken.run().step == 1
    again = trainer(tmp_path / "broken", small())
    assert again.resume()
    ended = again.run()
    assert ended.finished
    first, second = (load_file(run.weights) for run in (whole, ended))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_changes_all_but_the_encoders_first_stages(tmp_path):
    recipe = small()
    before = {name: p.clone() for name, p in task_of(recipe).build(recipe, None).named_parameters()}
    done = trainer(tmp_path, replace(recipe, optim=replace(recipe.optim, ema=None, warmup=0))).run()
    after = load_file(done.weights)
    rests = {name for name, p in before.items() if torch.equal(p, after[name])}
    assert rests == {name for name in before if name.startswith(tuple(f"encoder.features.{i}." for i in range(4)))}


def test_a_user_trains_and_marks_with_a_network_of_his_own(tmp_path, capsys):
    from PIL import Image

    shape = ("data.crop=64", "run.batch=1", "model.options=width:48,heads:2")
    words = ["train", "clicks", "--data", "composed", "--out", str(tmp_path / "run"), "--steps", "1", "--device", "cpu"]
    assert main([*words, "--set", *shape]) == 0
    assert load_network(tmp_path / "run/weights.safetensors").built_with == {"width": 48, "heads": 2, "predicts_iou": True}
    (tmp_path / "frames").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 70, 3)).astype(np.uint8)).save(tmp_path / "frames/0.png")
    out = tmp_path / "first.png"
    mark = ["mark", str(tmp_path / "frames"), "--point", "7:30,20", "-o", str(out), "--threads", "1"]
    assert main([*mark, "--network", str(tmp_path / "run/weights.safetensors")]) == 0
    assert np.asarray(Image.open(out))[20, 30] == 7
    assert main(["train", "clicks", "--variant", "aot-t", "--data", "composed", "--out", str(tmp_path / "x"), "--dry-run"]) == 2
    assert "trains the click network" in " ".join(capsys.readouterr().err.split())


def test_a_file_of_something_else_is_refused(tmp_path):
    from vosformer.weights.loading import packaged

    with pytest.raises(WeightsError, match="expected one of the click network"):
        load_network(packaged()["default-fast"])


masks = st.integers(0, 2**31).map(lambda seed: np.random.default_rng(seed).random((24, 24)) < 0.5)


@settings(max_examples=50, deadline=None)
@given(truth=masks, found=masks, rng=st.none() | st.integers(0, 99).map(np.random.default_rng))
def test_a_simulated_click_lies_in_an_error(truth, found, rng):
    click = next_click(truth, found, rng=rng)
    if click is None:
        assert (truth == found).all()
    else:
        assert truth[click.y, click.x] == click.positive != found[click.y, click.x]


def test_the_click_is_in_the_middle_of_the_largest_error():
    truth, found = np.zeros((60, 60), bool), np.zeros((60, 60), bool)
    truth[10:31, 10:31] = True  # missed
    found[40:49, 40:49] = True  # too much
    assert next_click(truth, found) == (20, 20, True)
    assert next_click(truth, found | truth) == (44, 44, False)
    valid = np.ones_like(truth)
    valid[5:35, 5:35] = False
    assert next_click(truth, found, valid) == (44, 44, False)
    assert next_click(truth, truth) is None


def test_distances_do_not_depend_on_where_arrays_lie(monkeypatch):
    """OpenCV's do, in the last bit, which made a resumed training end with other weights now and then."""
    random = np.random.default_rng(3)
    mask = random.random((64, 64)) < 0.998
    rows, columns = np.nonzero(~mask)
    y, x = np.mgrid[:64, :64]
    exact = ((y[..., None] - rows) ** 2 + (x[..., None] - columns) ** 2).min(-1)
    transform = cv2.distanceTransform

    def shifted(source, kind, size):
        buffer = np.zeros(64 * 64 + 64, np.float32)
        start = int(random.integers(64))
        return transform(source, kind, size, buffer[start : start + 64 * 64].reshape(64, 64))

    monkeypatch.setattr(cv2, "distanceTransform", shifted)
    for _ in range(200):
        assert (squared_distance(mask) == exact).all()


def test_the_focal_loss_by_its_equation():
    random = np.random.default_rng(1)
    logits, labels = random.normal(0, 2, (2, 5, 6)), random.choice([0, 1, 255], (2, 5, 6))
    expected = []
    for x, y in zip(logits, labels, strict=True):
        p = [
            1 / (1 + np.exp(-v)) if t == 1 else 1 / (1 + np.exp(v))
            for v, t in zip(x.ravel(), y.ravel(), strict=True)
            if t != 255
        ]
        weights = [(1 - q) ** 2 for q in p]
        mean = sum(weights) / len(weights)
        expected.append(sum(-w / mean * np.log(q) for w, q in zip(weights, p, strict=True)) / len(p))
    found = normalized_focal(torch.from_numpy(logits), torch.from_numpy(labels), 2.0)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_the_jaccard_loss_is_one_minus_iou_of_sure_masks():
    labels = torch.tensor([[[1, 1, 0, 255]]])
    logits = torch.tensor([[[99.0, -99.0, 99.0, 99.0]]])
    assert soft_jaccard(logits, labels).item() == pytest.approx(1 - 1 / 3, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_first_prompts_tell_the_truth(seed):
    labels = np.zeros((64, 64), np.uint8)
    labels[12:40, 20:52] = 1
    labels[40:44, 20:52] = 255
    sample = first_prompt(generator(seed), labels, Clicks(prompts=(0.2, 0.2, 0.2, 0.2, 0.2)))
    assert sample.marks.any() or sample.box is not None or sample.previous is not None
    assert (labels[sample.marks == 1] == 1).all()
    assert (labels[sample.marks == -1] == 0).all()
    assert sample.maps().shape == (CHANNELS, 16, 16)


def test_damage_is_damage_but_not_another_object():
    truth = np.zeros((80, 80), bool)
    truth[20:60, 15:55] = True
    scores = []
    for seed in range(20):
        wrong = damaged(np.random.default_rng(seed), truth)
        scores.append((wrong & truth).sum() / (wrong | truth).sum())
    assert max(scores) < 1
    assert 0.3 < np.mean(scores) < 0.95


def test_maps_know_where_marks_are_and_keep_every_pixel_of_the_mask():
    marks = np.zeros((32, 64), np.int8)
    marks[9, 33], marks[30, 2] = 1, -1
    previous = np.random.default_rng(0).random((32, 64)).astype(np.float32)
    maps = prompt_maps(marks, (8, 4, 40, 20), previous)
    assert np.unravel_index(maps[0].argmax(), (8, 16)) == (2, 8)
    assert np.unravel_index(maps[3].argmax(), (8, 16)) == (7, 0)
    assert maps[:6].max() == 1
    assert (maps[6, 1:5, 2:10] == 1).all()
    assert (maps[6] == -1).sum() == 8 * 16 - 4 * 8
    assert np.allclose(np.sort(maps[8:].ravel()), np.sort(previous.ravel()))
    assert not prompt_maps(marks, None, None)[6:].any()
    with pytest.raises(InputError, match="multiples of 4"):
        prompt_maps(np.zeros((30, 64), np.int8), None, None)


def test_crops_show_one_object_and_depend_on_their_number_alone():
    image, labels = np.zeros((120, 160, 3), np.uint8), np.zeros((120, 160), np.uint8)
    labels[30:60, 40:90], labels[80:110, 100:150], labels[62:70, 40:90] = 1, 2, 255
    image[labels == 1], image[labels == 2] = 90, 200
    crops = ObjectCrops(lambda rng, index: (image, labels), 64, seed=5)
    for number in range(8):
        clip = crops[number]
        assert clip.images.shape == (1, 3, 64, 64)
        assert clip.count == 1
        values = set(clip.labels.unique().tolist())
        assert 1 in values <= {0, 1, 255}
        assert torch.equal(crops[number].labels, clip.labels)
    with pytest.raises(DataError, match="show no object"):
        ObjectCrops(lambda rng, index: (image, np.zeros_like(labels)), 64)[0]


def test_crops_from_afar_show_some_pixels_of_the_object_still():
    image, labels = np.zeros((600, 800, 3), np.uint8), np.zeros((600, 800), np.uint8)
    labels[300:320, 400:420] = 1
    least = [
        min(int((ObjectCrops(lambda rng, index: (image, labels), 64, seed, zoom)[i].labels == 1).sum()) for i in range(20))
        for seed, zoom in enumerate((Zoom(share=0, min_shown=1), Zoom(share=0, min_shown=60)))
    ]
    assert least[0] < 20  # a frame of 800 pixels in 64
    assert least[1] > 40


def test_the_head_learns_what_iou_its_mask_has():
    """Its loss is the squared error of what it expects, and is no part of the loss where its weight is 0."""
    recipe = small()
    clip = task_of(recipe).data(recipe, ["composed"])[0]
    batch = Batch(clip.images[None], clip.labels[None], torch.tensor([1]), torch.tensor([0]))
    for weight in (0.0, 2.0):
        torch.manual_seed(0)
        network = ClickNetwork(width=48, heads=2)
        rolled = ClickTraining(network, replace(recipe, clicks=replace(recipe.clicks, rounds=(1.0,), iou=weight)))(batch, 0)
        rolled.loss.backward()
        terms = dict(zip(ClickTraining.TERMS, rolled.terms.tolist(), strict=True))
        assert terms["iou_error"] > 0
        assert terms["loss"] == pytest.approx(terms["focal"] + 0.5 * terms["jaccard"] + weight * terms["iou_error"], rel=1e-5)
        gradient = network.iou_head.layers[0].weight.grad
        assert (gradient is not None and bool(gradient.any())) == (weight > 0)
