"""Options: typed by annotation, given as text, as values or as JSON; kept in weights files and found there again."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from train_dummy import Squares

from vosformer import build
from vosformer.cli.session_options import SessionOptions
from vosformer.cli.train import train
from vosformer.encoders.convmae import ConvViTSize
from vosformer.encoders.vit import VIT_B, VIT_TINY
from vosformer.errors import InputError
from vosformer.models.jointformer_config import JointFormerConfig
from vosformer.models.simvos import SimVOSConfig
from vosformer.options import to_json, typed_options
from vosformer.policy import GivenOnly, Queue
from vosformer.registry import new_model
from vosformer.train.distributed import Processes
from vosformer.train.recipe import Model
from vosformer.train.recipes import recipe
from vosformer.train.trainer import Trainer
from vosformer.weights.saving import save_weights

JOINT = JointFormerConfig()


@pytest.mark.parametrize(
    ("config", "text", "value"),
    [
        (JOINT, {"size": "vit-b"}, {"size": VIT_B}),
        (JOINT, {"joint": "1,3"}, {"joint": (1, 3)}),
        (JOINT, {"joint": "first-2"}, {"joint": "first-2"}),
        (JOINT, {"policy": "queue-3-every-5"}, {"policy": Queue(5, 3)}),
        (JOINT, {"topk": "none", "others": "false", "updates": "3"}, {"topk": None, "others": False, "updates": 3}),
        (SimVOSConfig(), {"prototypes": "16,8", "drop_path": "0.2"}, {"prototypes": (16, 8), "drop_path": 0.2}),
        (SimVOSConfig(), {"prototypes": "none"}, {"prototypes": None}),
    ],
)
def test_text_becomes_a_value_and_json_brings_it_back(config, text, value):
    assert typed_options(config, text) == value
    assert typed_options(config, value) == value
    assert typed_options(config, json.loads(json.dumps(to_json(value)))) == value


def test_a_size_without_a_name_is_kept_as_its_fields():
    size = ConvViTSize((8, 16, 32), (1, 1, 2), (2, 2, 2), 2)
    assert typed_options(JOINT, json.loads(json.dumps(to_json({"size": size})))) == {"size": size}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"joints": "1"}, "no option 'joints'; did you mean: joint"),
        ({"size": "vit-x"}, "'vit-x' is not convvit-b, .* vit-b"),
        ({"size": 5}, "5 is not convvit-b"),
        ({"topk": "few"}, "'few' is not a whole number or none"),
        ({"mode": "e"}, "one of a, b, c, d"),
        ({"others": "maybe"}, "true or false"),
        ({"policy": "goldfish"}, "no memory policy 'goldfish'"),
    ],
)
def test_a_wrong_option_is_one_sentence(options, message):
    with pytest.raises(InputError, match=message):
        new_model("jointformer-b", **options)


def test_weights_of_a_model_with_objects_among_its_options_load_back(tmp_path):
    model = new_model("simvos-b", size=VIT_TINY, prototypes="16,8", within=1, fused=96, decoder=64)
    file = save_weights(model, "simvos-b", tmp_path / "w.safetensors", dtype=torch.float32)
    again = build("simvos-b", file)
    assert again.config.prototypes == (16, 8)
    assert again.config.size == VIT_TINY
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_training_with_options_of_every_kind_ends_with_weights_that_load(tmp_path):
    small = ("data.crop=64", "data.frames=3", "run.batch=1", "run.workers=0", "run.picture_every=0")
    options = ("size=vit-tiny", "features=last", "joint=1,3", "policy=queue-3-every-2", "updates=1", "fused=32", "decoder=32")
    train("jointformer-static", steps=2, out=tmp_path, set=small, option=options, device="cpu", threads=1)
    model = build("jointformer-b", tmp_path / "weights.safetensors")
    assert model.policy == Queue(2, 3)
    assert model.joint == (1, 3)
    assert model.config.size == VIT_TINY


def test_options_that_cannot_be_saved_are_refused_before_the_first_step(tmp_path):
    class Mine(GivenOnly):
        """Of a class that weights files know nothing of."""

    model = new_model("jointformer-tiny", policy=Mine())
    chosen = replace(recipe("jointformer-static"), model=Model("jointformer-tiny"))
    for save in (
        lambda: Trainer(model, chosen, Squares(), tmp_path, Processes(0, 1, torch.device("cpu"))),
        lambda: save_weights(model, "jointformer-tiny", tmp_path / "w.safetensors"),
    ):
        with pytest.raises(InputError, match=r"option policy .* weights file cannot hold"):
            save()


def test_options_of_the_command_line_go_to_the_builder_and_to_the_reading():
    run = SessionOptions(model="aost", option=("depth=2", "tiny=true", "kernel=3"))
    assert run.read_options == {"depth": 2}
    with pytest.warns(UserWarning, match="random weights"):
        SessionOptions(model="aost").session()
    session = run.session()
    assert session.model.config.kernel == 3
    with pytest.raises(InputError, match="expected NAME=VALUE"):
        _ = SessionOptions(option=("depth",)).read_options
