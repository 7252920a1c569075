"""The numbers that the papers state are those of the recipes; settings are changed with care; plans can be read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from vosformer.cli.train import train
from vosformer.data.datasets.catalogue import LAYOUTS
from vosformer.errors import DataError, InputError
from vosformer.geometry import Geometry
from vosformer.registry import new_model, variants
from vosformer.train.data import _COMPOSED, _curriculum, training_clips
from vosformer.train.optim import new_optimizer, set_rate
from vosformer.train.overrides import with_settings
from vosformer.train.recipe import Recipe, checked
from vosformer.train.recipes import recipe, recipes
from vosformer.train.start import fitted, resolved
from vosformer.weights import packaged

# What each paper says, section in the recipe's `paper`: AOST 4.3, DeAOT 5 ("the same as AOT"), SimVOS 4, JointFormer 4.1 and 4.2.2,
# OneVOS 4.1.
STATED = {
    "aot-pre": {
        "optim.algorithm": "adamw",
        "optim.lr": 4e-4,
        "optim.lr_min": 2e-5,
        "optim.weight_decay": 0.03,
        "optim.schedule": "poly",
        "run.steps": 100_000,
        "run.batch": 16,
        "data.crop": 465,
        "data.frames": 5,
        "data.max_objects": 10,
        "loss.ce": 0.5,
        "loss.jaccard": 0.5,
        "rollout.gap": 2,
    },
    "aot-main": {"optim.lr": 2e-4, "optim.lr_min": 2e-5, "optim.weight_decay": 0.07, "run.steps": 100_000, "run.batch": 16},
    "aot-main-davis": {"optim.lr": 2e-4, "optim.weight_decay": 0.07, "run.steps": 50_000, "run.batch": 16},
    "aost-pre": {"optim.lr": 4e-4, "optim.weight_decay": 0.03, "run.steps": 100_000, "loss.alpha": 2.0},
    "aost-main": {"optim.lr": 2e-4, "optim.weight_decay": 0.07, "run.steps": 100_000, "loss.alpha": 2.0, "rollout.gap": 2},
    "deaot-pre": {"optim.lr": 4e-4, "optim.weight_decay": 0.03, "run.steps": 100_000, "data.frames": 5, "rollout.gap": 2},
    "deaot-main": {"optim.lr": 2e-4, "optim.weight_decay": 0.07, "run.steps": 100_000, "run.batch": 16, "data.crop": 465},
    "deaot-main-davis": {"run.steps": 50_000},
    "simvos-main": {
        "optim.lr": 2e-5,
        "run.batch": 32,
        "run.steps": 210_000,
        "optim.step_at": (105_000,),
        "data.crop": 384,
        "data.gap_curriculum": (),
    },
    "jointformer-static": {
        "optim.algorithm": "adamw",
        "optim.lr": 5e-5,
        "optim.weight_decay": 0.05,
        "run.steps": 150_000,
        "run.batch": 24,
        "optim.step_at": (),
        "data.frames": 3,
        "data.crop": 384,
        "rollout.update_probability": 0.6,
        "rollout.references": 2,
    },
    "jointformer-bl30k": {"run.steps": 300_000, "run.batch": 12, "optim.step_at": (200_000,), "optim.step_factor": 0.1},
    "jointformer-main": {
        "optim.lr": 5e-5,
        "run.steps": 160_000,
        "run.batch": 12,
        "optim.step_at": (100_000,),
        "optim.step_factor": 0.1,
        "data.frames": 4,
        "data.max_objects": 3,
        "data.crop": 384,
        "rollout.references": 2,
        "rollout.update_probability": 0.6,
    },
    "jointformer-mose": {"run.steps": 160_000, "run.batch": 12},
    "jointformer-visor": {"run.steps": 160_000, "run.batch": 12},
    "jointformer-vost": {"run.steps": 40_000},
    "jointformer-lvos": {"run.steps": 10_000},
    "onevos-pre": {"optim.lr": 2e-4, "run.steps": 100_000, "loss.ce": 0.5, "loss.jaccard": 0.5},
    # 200,000 iterations of 4 clips, two of which make an update: 800,000 clips
    "onevos-main": {"optim.lr": 1e-4, "run.steps": 100_000, "run.batch": 4 * 2, "run.accumulate": 2, "data.frames": 5},
    "onevos-mose": {"optim.lr": 1e-4, "run.steps": 100_000},
    "onevos-dts": {"optim.lr": 1e-4, "model.variant": "onevos-b-d"},
}

# What only the released code tells.
RELEASED = {
    "aot-pre": {
        "optim.warmup": 5_000,
        "optim.clip": 5.0,
        "optim.ema": 0.9999,
        "optim.power": 0.9,
        "loss.top_share": 0.15,
        "loss.top_until": 50_000,
        "loss.auxiliary_until": 10_000,
        "rollout.own_masks_from": None,
        "data.merge": 1.0,
    },
    "aot-main": {"loss.auxiliary_until": 100_000, "rollout.own_masks_from": 50_000, "data.merge": 0.3, "data.reverse": 0.5},
    "aot-main-davis": {"optim.warmup": 2_500, "rollout.own_masks_from": 25_000, "loss.top_until": 25_000},
    "simvos-main": {
        "optim.algorithm": "adam",
        "optim.weight_decay": 1e-7,
        "optim.clip": None,
        "optim.ema": None,
        "loss.top_from": 20_000,
        "loss.top_until": 70_000,
        "loss.dice": 0.0,
        "data.frames": 2,
        "data.max_objects": 2,
    },
    "jointformer-main": {
        "optim.clip": 0.1,
        "optim.no_decay_1d": False,
        "loss.dice": 1.0,
        "loss.frames": "sum",
        "loss.top_from": 20_000,
        "loss.top_until": 70_000,
        "data.gap_curriculum": ((0, 5), (15_000, 10), (45_000, 15), (135_000, 5)),
        "data.plain_from": 150_000,
        "rollout.memory": "random",
        "rollout.feedback": "soft",
    },
    "jointformer-vost": {"loss.top_from": 4_000, "loss.top_until": 13_000, "optim.step_at": (20_000,), "data.ignored": 0.2},
    "jointformer-lvos": {"loss.top_from": 1_000, "loss.top_until": 2_500, "optim.step_at": (3_000,), "data.ignored": 1.0},
    "onevos-pre": {"optim.weight_decay": 0.03, "optim.lr_min": 2e-5, "data.frames": 4, "data.merge": 1.0, "data.crop": 464},
    "onevos-main": {
        "optim.weight_decay": 0.07,
        "optim.lr_min": 1e-5,
        "optim.warmup": 5_000,
        "optim.ema": 0.9999,
        "optim.lr_scales": ((r"^backbone\.", 0.1),),
        "optim.lr_times": ((r"linear_ID_KV", 2.0),),
        "rollout.own_masks_from": 50_000,
        "rollout.gap": 1,
        "loss.top_until": 50_000,
    },
    "onevos-mose-finetune": {"run.steps": 100_000, "optim.lr": 5e-5, "optim.lr_min": 5e-6, "model.start": "onevos-main"},
}


_STILLS = "coco:1:1:1 ecssd:1:1:1 msra10k:1:1:1 pascal-s:1:1:1 voc2012:1:1:1"
_BOTH = "youtube2019:1:3:1 davis2017:5:12:1"
# The sets by KIND:REPEAT:GAP:DIVISOR, the augmentation, and the rate of the pretrained part: the released code and, for the static
# sets and DAVIS x 5, the papers (AOST 4.3, JointFormer 4.1, OneVOS 4.1).
SOURCES = {
    "aot-pre": (_STILLS, "aot", 0.1),
    "aot-main": (_BOTH, "aot", 0.1),
    "aot-main-davis": ("davis2017:5:12:1", "aot", 0.1),
    "aost-pre": (_STILLS, "aot", 0.1),
    "aost-main": (_BOTH, "aot", 0.1),
    "deaot-pre": (_STILLS, "deaot", 0.1),
    "deaot-main": (_BOTH, "deaot", 0.1),
    "deaot-main-davis": ("davis2017:5:12:1", "deaot", 0.1),
    "simvos-main": ("davis2017:5:10:1 youtube2019:1:2:1", "simvos", 1.0),
    "jointformer-static": (
        "fss1000:1:1:1 duts-tr:1:1:1 duts-te:1:1:1 ecssd:1:1:1 big:5:1:1 hrsod:5:1:1",
        "jointformer",
        0.1,
    ),
    "jointformer-bl30k": ("bl30k:1:1:1", "jointformer-bl30k", 0.1),
    "jointformer-main": ("davis2017:5:1:1 youtube2019:1:1:5", "jointformer", 0.1),
    "jointformer-mose": ("mose:1:1:1", "jointformer", 0.1),
    "jointformer-vost": ("vost:1:1:5", "jointformer", 0.1),
    "jointformer-lvos": ("lvos:1:1:5", "jointformer", 0.1),
    "jointformer-visor": ("visor:1:1:1", "jointformer", 0.1),
    "onevos-pre": (_STILLS, "onevos", 0.1),
    "onevos-main": (_BOTH, "onevos", 0.1),
    "onevos-mose": (f"{_BOTH} mose:1:3:1", "onevos", 0.1),
    "onevos-dts": (_BOTH, "onevos", 0.1),
    "onevos-main-youtube": ("youtube2019:1:3:1", "onevos", 0.1),
    "onevos-mose-finetune": ("mose:1:3:1", "onevos", 0.1),
    "aot-main-youtube": ("youtube2019:1:3:1", "aot", 0.1),
    "aost-main-youtube": ("youtube2019:1:3:1", "aot", 0.1),
    "deaot-main-youtube": ("youtube2019:1:3:1", "deaot", 0.1),
    "aot-youtube": ("youtube2019:1:3:1", "aot", 0.1),
    "deaot-youtube": ("youtube2019:1:3:1", "deaot", 0.1),
    "simvos-youtube": ("youtube2019:1:2:1", "simvos", 1.0),
}


@pytest.mark.parametrize("name", SOURCES)
def test_sets_and_rates_of_the_papers(name):
    found = recipe(name)
    sets = " ".join(f"{s.kind}:{s.repeat}:{s.gap_max}:{s.gap_divisor}" for s in found.data.sources)
    model = new_model(found.model.variant, tiny=True)
    # The first weight of the encoder or backbone, whatever it is called.
    first = next(n for n, _ in model.named_parameters() if re.match(r"encoder|backbone|patch_embed|blocks", n))
    rates = (factor for pattern, factor in found.optim.lr_scales if re.search(pattern, first))
    assert (sets, found.data.pipeline, next(rates, 1.0)) == SOURCES[name]


def test_gaps_grow_with_the_steps_and_are_divided():
    found = recipe("jointformer-main")
    davis, youtube = (_curriculum(found, source) for source in found.data.sources)
    clips = [step * found.run.batch for step in (0, 14_999, 15_000, 45_000, 134_999, 135_000)]
    assert [davis.at(clip) for clip in clips] == [5, 5, 10, 15, 15, 5]
    assert [youtube.at(clip) for clip in clips] == [1, 1, 2, 3, 3, 1]
    assert [_curriculum(recipe("aot-main"), source).at(10**6) for source in recipe("aot-main").data.sources] == [3, 12]


@pytest.mark.parametrize("name", STATED)
def test_numbers_stated_in_the_paper(name):
    found = dict(recipe(name).flat())
    assert {key: found[key] for key in STATED[name]} == STATED[name]


@pytest.mark.parametrize("name", RELEASED)
def test_numbers_of_the_released_code(name):
    found = dict(recipe(name).flat())
    for key, value in RELEASED[name].items():
        assert found[key] == (pytest.approx(value) if isinstance(value, float) else value), key


def test_without_pre_training_a_recipe_begins_with_the_encoder():
    assert recipe("aot-youtube").model.start is recipe("deaot-youtube").model.start is None
    assert recipe("aot-main-youtube").model.start == "aot-pre"


def test_the_rate_of_the_marking_layers_of_onevos():
    """min(2 * (0.1 * (rate - lr_min) + lr_min), rate), as in the released code."""
    model = new_model("onevos-tiny")
    optim = recipe("onevos-main").optim
    optimizer = new_optimizer(model, optim, None)
    for step, marking, rest in ((5_000, 3.8e-5, 1.9e-5), (0, 1e-5, 1e-5)):
        set_rate(optimizer, optim, step, 100_000)
        rates = {name: group["lr"] for group in optimizer.param_groups for name in group["names"]}
        assert {round(rates[name], 12) for name in rates if "linear_ID_KV" in name} == {marking}
        others = {round(rates[name], 12) for name in rates if name.startswith("backbone.") and "linear_ID_KV" not in name}
        assert others == {rest}


def test_every_recipe_of_the_issue_is_there():
    wanted = {"aot-pre", "aot-main", "aost-main", "deaot-pre", "deaot-main", "simvos-main", "finetune"}
    wanted |= {f"jointformer-{stage}" for stage in ("static", "bl30k", "main", "mose", "vost", "lvos", "visor")}
    wanted |= {f"onevos-{stage}" for stage in ("pre", "main", "mose", "dts")}
    assert wanted <= set(recipes())


@pytest.mark.parametrize("name", recipes())
def test_recipes_name_things_that_exist(name):
    found = recipe(name)
    assert found.name == name
    assert found.model.start is None or found.model.start in recipes() or found.model.start in packaged()
    if found.task == "video" and found.model.variant != "default":
        assert found.model.variant in {variant.name for variant in variants()}
    assert all(source.kind in LAYOUTS or source.kind in _COMPOSED for source in found.data.sources)


TINY = {"aot": {"tiny": True}, "deaot": {"tiny": True}, "aost": {"tiny": True}}


@pytest.mark.parametrize("name", [name for name, each in recipes().items() if name != "finetune" and each.task == "video"])
def test_patterns_match_parameters_of_their_system(name):
    found = recipe(name)
    system = next(v.system for v in variants() if v.name == found.model.variant)
    options = TINY.get(system, {})
    small = found.model.variant if options else {"onevos-b-d": "onevos-tiny-d"}.get(found.model.variant, f"{system}-tiny")
    names = [n for n, _ in new_model(small, **options).named_parameters()]
    patterns = [p for p, _ in found.optim.lr_scales] + [*found.rollout.freeze_own_masks, *found.model.freeze]
    patterns += [p for p in found.optim.no_decay if p == "conv_out"]
    for pattern in patterns:
        matched = [n for n in names if re.search(pattern, n)]
        assert matched, pattern
        assert len(matched) < len(names)


def test_settings_are_changed_by_type():
    base = recipe("aot-main")
    changed = with_settings(
        base,
        [
            "optim.lr=1e-4",
            "data.frames=3",
            "run.checkpointing=true",
            "optim.ema=none",
            "run.precision=bf16",
            "optim.betas=0.9,0.95",
            "optim.lr_scales=^encoder:0.2,^decoder:0.5",
            "data.sources=davis2017:5:12,folder",
            "data.gap_curriculum=0:5,100:10",
            "model.options=freeze_at:0,tiny:true",
            "optim.step_at=5,7",
            "optim.no_decay=",
            "loss.alpha=inf",
        ],
    )
    found = dict(changed.flat())
    assert found["optim.lr"] == 1e-4
    assert found["data.frames"] == 3
    assert found["run.checkpointing"] is True
    assert found["optim.ema"] is None
    assert found["optim.betas"] == (0.9, 0.95)
    assert found["optim.lr_scales"] == (("^encoder", 0.2), ("^decoder", 0.5))
    assert [(s.kind, s.repeat, s.gap_max) for s in found["data.sources"]] == [("davis2017", 5, 12), ("folder", 1, 1)]
    assert found["data.gap_curriculum"] == ((0, 5), (100, 10))
    assert found["model.options"] == (("freeze_at", 0), ("tiny", True))
    assert found["optim.step_at"] == (5, 7)
    assert found["optim.no_decay"] == ()
    assert found["loss.alpha"] == float("inf")
    assert base == recipe("aot-main")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optim.lr", "expected KEY=VALUE"),
        ("optim.abcdefgh=1", "known: algorithm"),
        ("optim.lrr=1", "did you mean: lr"),
        ("optim=1", "optim.lr"),
        ("optim.lr.x=1", "single value"),
        ("data.frames=2.5", "'2.5' is not a whole number"),
        ("optim.lr=fast", "'fast' is not a number"),
        ("run.checkpointing=maybe", "not true or false"),
        ("run.precision=fp8", "amp, fp32, bf16, fp16"),
        ("optim.betas=0.9", "2 values parted by commas"),
        ("optim.lr_scales=encoder", "NAME:VALUE"),
        ("data.sources=a:1:2:3:4", "KIND"),
    ],
)
def test_wrong_settings_are_told(setting, message):
    with pytest.raises(InputError, match=re.escape(message)):
        with_settings(recipe("aot-main"), [setting])


def test_stretching_keeps_the_shares():
    short = recipe("jointformer-main").scaled(1600)
    assert short.optim.step_at == (1000,)
    assert short.data.gap_curriculum == ((0, 5), (150, 10), (450, 15), (1350, 5))
    assert short.data.plain_from == 1500
    assert (short.loss.top_from, short.loss.top_until) == (200, 700)
    half = recipe("onevos-main").scaled(100_000)
    assert half.optim.ema == pytest.approx(1 - 1 / (0.1 * 100_000))
    assert half.optim.warmup == 5_000
    assert half.rollout.own_masks_from == 50_000
    with pytest.raises(InputError, match="at least 1 step"):
        short.scaled(0)


def test_an_unknown_recipe_names_the_closest():
    with pytest.raises(InputError, match="deaot-main"):
        recipe("deaot-mian")


def test_the_plan_can_be_read(capsys):
    train("deaot-main", data=("composed",), dry_run=True, set=("optim.lr=1e-3", "model.options=tiny:true"), device="cpu")
    text = capsys.readouterr().out
    for piece in ("deaot-main", "optim.lr ", "0.001", "parameters: lr up to", "0.000118", "100000 steps", "deaot-pre"):
        assert piece in text, piece


def test_a_recipe_runs_from_nothing(tmp_path):
    settings = (
        "data.crop=65",
        "data.frames=3",
        "run.batch=2",
        "run.workers=0",
        "model.options=tiny:true",
        "run.precision=fp32",
    )
    code = train("deaot-pre", data=("composed",), steps=2, out=tmp_path, set=settings, device="cpu")
    assert code == 0
    assert (tmp_path / "weights.safetensors").is_file()
    # Fine-tuning on one's own clips begins with what this left, and knows by itself which variant that is.
    more = tmp_path / "more"
    own = tmp_path / "own"
    write_video(own / "cat" / "frames", own / "cat" / "masks")
    settings = (*settings[:4], "run.precision=fp32")
    train("finetune", data=(str(own),), steps=1, out=more, set=settings, from_=tmp_path, device="cpu")
    chosen, file = resolved(recipe("finetune"), more)
    assert chosen.model.variant == "deaot-t"
    assert dict(chosen.model.options) == {"tiny": True}
    assert file == more / "weights.safetensors"


@pytest.mark.parametrize(
    "setting",
    [
        "run.log_every=0", "run.save_every=0", "run.seed=-1", "run.workers=-1", "run.steps=0", "run.shard_mib=0",
        "data.crop=0", "data.frames=1", "data.max_objects=0", "data.window=0.5,1.5", "data.gap_curriculum=100:5",
        "optim.lr=nan", "optim.lr=1e-6", "optim.betas=2,2", "optim.ema=1", "optim.ema=2", "loss.top_share=0",
        "model.freeze=(", "optim.lr_scales=(:2",
    ],
)  # fmt: skip
def test_numbers_without_sense_are_refused_by_name(setting):
    with pytest.raises(InputError, match=setting.partition("=")[0]):
        checked(with_settings(recipe("default-static"), [setting]))


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_passes_the_checks(name):
    checked(recipe(name))


def test_crops_that_a_system_cannot_take_are_moved(capsys):
    for corners in (True, False):
        model = SimpleNamespace(geometry=Geometry(align_corners=corners))
        data = fitted(with_settings(recipe("default-finish"), ["data.crop=465", "data.width=593"]), model).data
        assert data.size == ((465, 593) if corners else (464, 592))
    assert train("aot-main", set=("data.crop=80", "model.options=tiny:true"), dry_run=True, device="cpu") == 0
    printed = capsys.readouterr()
    assert "crops of (81, 81), not (80, 80)" in printed.err
    assert "aot-main goes on from aot-pre, but no weights were given with --from" in " ".join(printed.err.split())
    assert "from: fresh weights" in printed.out


def test_an_encoder_and_whole_weights_are_not_both_taken(tmp_path):
    with pytest.raises(InputError, match="--encoder was given, but aot-main begins with"):
        train("aot-main", encoder=tmp_path / "a.safetensors", from_=tmp_path / "b.safetensors", dry_run=True)
    with pytest.raises(InputError, match=r"finetune begins with .*default\.safetensors"):
        train("finetune", encoder=tmp_path / "a.safetensors", dry_run=True)


def test_composed_video_in_place_of_a_recipes_data_is_told(capsys):
    train("aot-main", set=("model.options=tiny:true",), dry_run=True, device="cpu")
    assert "composed video instead of youtube2019, davis2017" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(InputError, match="cannot be joined"):
        training_clips(recipe("aot-main"), ["composed", "own"])


def test_missing_data_is_one_clear_sentence(tmp_path):
    with pytest.raises(DataError, match=r"'youtube2019'.*expected there: YouTube-VOS-2019"):
        training_clips(recipe("aot-main"), [str(tmp_path)])


def test_videos_and_pictures_are_not_joined(tmp_path):
    mixed = with_settings(recipe("aot-main"), ["data.sources=davis2017,coco"])
    with pytest.raises(InputError, match="cannot be joined"):
        training_clips(mixed, [str(tmp_path)])


def test_fine_tuning_needs_weights_or_a_variant(monkeypatch):
    monkeypatch.setattr("vosformer.train.start.packaged", dict)
    with pytest.raises(InputError, match="--from"):
        resolved(recipe("finetune"), None)


def test_composed_crops_may_be_wide_and_others_may_not(tmp_path):
    write_davis(tmp_path)
    wide = with_settings(recipe("default-finish"), ["data.crop=64", "data.width=112", "data.sources=crowds"])
    assert training_clips(wide, [str(tmp_path)])[0].images.shape == (4, 3, 64, 112)
    with pytest.raises(InputError, match=r"data.width=112 .*davis2017 are square"):
        training_clips(with_settings(recipe("aot-main"), ["data.width=112", "data.sources=davis2017"]), [str(tmp_path)])


def test_the_window_of_a_recipe_says_how_near_things_are(tmp_path):
    write_davis(tmp_path)

    def area(window: str) -> float:
        """Median share of the picture that the video's own square takes, which every clip shows in full."""
        data = ["data.sources=composed", "data.crop=96", "data.frames=1", f"data.window={window}", "data.max_objects=7"]
        clips = training_clips(with_settings(recipe("default-finish"), data), [str(tmp_path)])
        assert clips.config.max_objects == 7
        clips.config = replace(clips.config, backdrops={"video": 1.0}, objects=(1.0,), distractors=(1.0,), light=0.0)
        return float(np.median([(clips[i].labels[0] == 1).float().mean() for i in range(12)]))

    assert 0.2 < area("0.95,1.0") < area("0.6,0.65") - 0.1


def write_video(frames: Path, masks: Path) -> None:
    """Six frames of a bright square with its masks."""
    frames.mkdir(parents=True)
    masks.mkdir(parents=True)
    for i in range(6):
        image = np.full((120, 160), 60, np.uint8)
        image[30 + i : 90 + i, 40:100] = 200
        cv2.imwrite(str(frames / f"{i:05d}.jpg"), image)
        cv2.imwrite(str(masks / f"{i:05d}.png"), (image > 100).astype(np.uint8))


def write_davis(root: Path) -> None:
    """One sequence in DAVIS' layout."""
    write_video(root / "DAVIS" / "JPEGImages" / "480p" / "one", root / "DAVIS" / "Annotations" / "480p" / "one")
    lists = root / "DAVIS" / "ImageSets" / "2017"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("one\n")


@pytest.mark.parametrize(
    ("name", "frames", "side"), [("aot-main", 5, 465), ("simvos-main", 2, 384), ("jointformer-main", 4, 384)]
)
def test_clips_of_a_data_set_as_the_paper_cuts_them(tmp_path, name, frames, side):
    write_davis(tmp_path)
    chosen: Recipe = with_settings(recipe(name), ["data.sources=davis2017:5:3", "data.merge=0"])
    clip = training_clips(chosen, [str(tmp_path)])[0]
    assert clip.images.shape == (frames, 3, side, side)
    assert clip.count == 1


def test_the_last_steps_of_jointformer_are_not_sheared(tmp_path):
    write_davis(tmp_path)
    chosen = with_settings(
        recipe("jointformer-main"), ["data.sources=davis2017", "data.crop=64", "run.batch=4", "data.plain_from=10"]
    )
    clips = training_clips(chosen, [str(tmp_path)])
    assert clips.change == 40
    assert clips.before.augment.affine != clips.after.augment.affine
    assert clips[39].images.equal(clips.before[39].images)
    assert clips[40].images.equal(clips.after[40].images)
