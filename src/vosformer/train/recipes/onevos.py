"""OneVOS (Sec. 4.1); what the paper does not state is from the released code.

The Dynamic Token Selector was not released: how its stage begins and how long it lasts follow the main training.
"""

from __future__ import annotations

from dataclasses import replace

from vosformer.train.recipe import Data, DataSource, Loss, Model, Optim, Recipe, Rollout, Run
from vosformer.train.recipes.aot import STILLS

_VIDEOS = (DataSource("youtube2019", gap_max=3), DataSource("davis2017", repeat=5, gap_max=12))

_PRE = Recipe(
    name="onevos-pre",
    paper="OneVOS Sec. 4.1, pre-training on synthetic video from still pictures",
    model=Model("onevos-b"),
    data=Data(STILLS, frames=4, crop=464, pipeline="onevos", merge=1.0, max_objects=10),
    optim=Optim(
        algorithm="adamw",
        lr=2e-4,
        lr_min=2e-5,
        lr_scales=((r"^backbone\.", 0.1),),
        lr_times=((r"linear_ID_KV", 2.0),),
        weight_decay=0.03,
        no_decay=(r"conv_out",),
        schedule="poly",
        power=0.9,
        warmup=5_000,
        clip=5.0,
        ema=0.9999,
    ),
    loss=Loss(ce=0.5, jaccard=0.5, top_share=0.15, top_until=50_000),
    rollout=Rollout(own_masks_from=None, gap=1),
    # The paper's 200,000 iterations are of 4 clips on 4 GPUs, and two of them make one update.
    run=Run(steps=100_000, batch=8, accumulate=2),
)

_MAIN = replace(
    _PRE,
    name="onevos-main",
    paper="OneVOS Sec. 4.1, main training on DAVIS 2017 and YouTube-VOS 2019",
    model=replace(_PRE.model, start="onevos-pre"),
    data=replace(_PRE.data, sources=_VIDEOS, frames=5, merge=0.3),
    optim=replace(_PRE.optim, lr=1e-4, lr_min=1e-5, weight_decay=0.07),
    rollout=replace(_PRE.rollout, own_masks_from=50_000, freeze_own_masks=(r"^patch_wise_id_bank\.",)),
)

_MOSE = replace(
    _MAIN,
    name="onevos-mose",
    paper="OneVOS Sec. 4.1, main training with MOSE besides (the model marked *)",
    data=replace(_MAIN.data, sources=(*_VIDEOS, DataSource("mose", gap_max=3))),
)

_DTS = replace(
    _MAIN,
    name="onevos-dts",
    paper="OneVOS Sec. 3.3 and 4.1, training of the Dynamic Token Selector (OneVOS-D) under the segmentation loss alone",
    model=Model("onevos-b-d", start="onevos-main", may_miss=(r".*selector\..*",)),
)

_YOUTUBE = replace(
    _MAIN,
    name="onevos-main-youtube",
    paper="OneVOS Sec. 4.1, the main training on YouTube-VOS 2019 alone",
    data=replace(_MAIN.data, sources=_VIDEOS[:1]),
)

_MOSE_ONLY = replace(
    _MAIN,
    name="onevos-mose-finetune",
    paper="OneVOS Table 1, the model for MOSE: MOSE alone after the main training (released mose.py: 5e-5 to 5e-6)",
    model=Model("onevos-b", start="onevos-main"),
    data=replace(_MAIN.data, sources=(DataSource("mose", gap_max=3),)),
    optim=replace(_MAIN.optim, lr=5e-5, lr_min=5e-6),
)

RECIPES = (_PRE, _MAIN, _MOSE, _DTS, _YOUTUBE, _MOSE_ONLY)
