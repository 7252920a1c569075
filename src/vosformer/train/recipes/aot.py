"""AOT, AOST and DeAOT (AOST Sec. 4.3; DeAOT Sec. 5 keeps AOT's hyper-parameters).

What the papers do not state is from the released code: warm-up, clipping, the schedule of the cross-entropy, the auxiliary loss,
merging. With an encoder other than MobileNetV2 the code ends the main training at 1e-5 instead of the 2e-5 of the paper.
"""

from __future__ import annotations

from dataclasses import replace

from vosformer.train.recipe import Data, DataSource, Loss, Model, Optim, Recipe, Rollout, Run

STILLS = tuple(DataSource(name) for name in ("coco", "ecssd", "msra10k", "pascal-s", "voc2012"))
YOUTUBE = DataSource("youtube2019", gap_max=3)
DAVIS = DataSource("davis2017", repeat=5, gap_max=12)

_PRE = Recipe(
    name="aot-pre",
    paper="AOT / AOST Sec. 4.3, pre-training on synthetic video from still pictures",
    model=Model("aot-t"),
    data=Data(STILLS, frames=5, crop=465, pipeline="aot", merge=1.0, max_objects=10),
    optim=Optim(
        algorithm="adamw",
        lr=4e-4,
        lr_min=2e-5,
        lr_scales=((r"^encoder\.", 0.1),),
        weight_decay=0.03,
        no_decay=(r"relative_emb_v", r"relative_position_bias_table", r"absolute_pos_embed", r"conv_out"),
        schedule="poly",
        power=0.9,
        warmup=5_000,
        clip=5.0,
        ema=0.9999,
    ),
    loss=Loss(ce=0.5, jaccard=0.5, top_share=0.15, top_until=50_000, auxiliary=1.0, auxiliary_until=10_000),
    rollout=Rollout(own_masks_from=None, gap=2),
    run=Run(steps=100_000, batch=16),
)

_MAIN = replace(
    _PRE,
    name="aot-main",
    paper="AOT / AOST Sec. 4.3, main training on YouTube-VOS 2019 and DAVIS 2017",
    model=replace(_PRE.model, start="aot-pre"),
    data=replace(_PRE.data, sources=(YOUTUBE, DAVIS), merge=0.3),
    optim=replace(_PRE.optim, lr=2e-4, weight_decay=0.07),
    loss=replace(_PRE.loss, auxiliary_until=100_000),
    rollout=replace(_PRE.rollout, own_masks_from=50_000, freeze_own_masks=(r"^patch_wise_id_bank\.",)),
)


def _deaot(recipe: Recipe, name: str) -> Recipe:
    """Return the same numbers with DeAOT's augmentation."""
    start = None if recipe.model.start is None else "deaot-pre"
    return replace(
        recipe,
        name=name,
        paper=recipe.paper.replace("AOT / AOST Sec. 4.3", "DeAOT Sec. 5 (as AOT)"),
        model=Model("deaot-t", start=start),
        data=replace(recipe.data, pipeline="deaot"),
        # The norm of the identities is in front of what rests, and has no gradient either.
        rollout=replace(
            recipe.rollout,
            freeze_own_masks=(r"^patch_wise_id_bank\.", r"^id_norm\.") if recipe.rollout.freeze_own_masks else (),
        ),
    )


def _aost(recipe: Recipe, name: str) -> Recipe:
    """Return the same numbers with scalable supervision (AOST Eq. 11): alpha = 2."""
    made = _deaot(recipe, name)
    start = None if recipe.model.start is None else "aost-pre"
    return replace(
        made,
        paper=recipe.paper,
        model=Model("aost", start=start),
        data=replace(recipe.data, pipeline="aot"),
        loss=replace(recipe.loss, alpha=2.0),
    )


def _davis(recipe: Recipe, name: str) -> Recipe:
    """Return the main training on DAVIS alone: half the steps."""
    half = recipe.scaled(50_000)
    return replace(
        half,
        name=name,
        paper="AOT / AOST Sec. 4.3, main training on DAVIS 2017 alone",
        data=replace(half.data, sources=(DAVIS,)),
    )


def _youtube(recipe: Recipe, name: str) -> Recipe:
    """Return the main training on YouTube-VOS alone."""
    return replace(
        recipe,
        name=name,
        paper="AOST Sec. 6.2 (Table 10), main training on YouTube-VOS 2019 alone",
        data=replace(recipe.data, sources=(YOUTUBE,)),
    )


def _alone(recipe: Recipe, name: str) -> Recipe:
    """Return the main training from the encoder's weights, without a stage on pictures."""
    paper = "AOST Sec. 6.2 (Table 10), main training without pre-training (released ytb.py)"
    return replace(recipe, name=name, paper=paper, model=replace(recipe.model, start=None))


RECIPES = (
    _PRE,
    _MAIN,
    _davis(_MAIN, "aot-main-davis"),
    _aost(_PRE, "aost-pre"),
    _aost(_MAIN, "aost-main"),
    _deaot(_PRE, "deaot-pre"),
    _deaot(_MAIN, "deaot-main"),
    _davis(_deaot(_MAIN, "deaot-main"), "deaot-main-davis"),
    _youtube(_MAIN, "aot-main-youtube"),
    _youtube(_aost(_MAIN, "aost-main"), "aost-main-youtube"),
    _youtube(_deaot(_MAIN, "deaot-main"), "deaot-main-youtube"),
    _alone(_youtube(_MAIN, "aot-main-youtube"), "aot-youtube"),
    _alone(_youtube(_deaot(_MAIN, "deaot-main"), "deaot-main-youtube"), "deaot-youtube"),
)
