"""The default weights (clips of DAVIS train, still pictures and composed scenes), and fine-tuning on one's own clips."""

from __future__ import annotations

from dataclasses import replace

from vosformer.train.recipe import Data, Loss, Model, Optim, Recipe, Rollout, Run, Source

_SOURCES = (
    Source("videos", repeat=45, gap_max=6),
    Source("stills", repeat=25, gap_max=5),
    Source("composed", repeat=30, gap_max=5),
)


def _mix(videos: int, stills: int, composed: int, gap: int = 7) -> tuple[Source, ...]:
    return (
        Source("videos", repeat=videos, gap_max=8),
        Source("stills", repeat=stills, gap_max=5),
        Source("composed", repeat=composed, gap_max=gap),
    )


def _meeting(videos: int, stills: int, composed: int, crowds: int, gap: int = 7) -> tuple[Source, ...]:
    return (*_mix(videos, stills, composed), Source("crowds", repeat=crowds, gap_max=gap))


def _pictures(stills: int, composed: int, crowds: int, gap: int) -> tuple[Source, ...]:
    return tuple(
        Source(kind, repeat=repeat, gap_max=gap)
        for kind, repeat in (("stills", stills), ("composed", composed), ("crowds", crowds))
    )


SMALL = Recipe(
    name="default-small",
    paper="AOT and DeAOT's training (AOST Sec. 4.3) on small crops, without a stage of still pictures alone",
    model=Model("deaot-t", options=(("freeze_at", 1),)),
    data=Data(_SOURCES, frames=4, crop=209, pipeline="composed"),
    optim=Optim(
        lr=4e-4,
        lr_min=2e-5,
        lr_scales=((r"^encoder\.", 0.1),),
        weight_decay=0.03,
        no_decay=(r"relative_emb_v", r"conv_out"),
        warmup=150,
        clip=5.0,
        ema=0.9933,
    ),
    loss=Loss(top_until=1500, auxiliary=1.0, auxiliary_until=3000),
    rollout=Rollout(own_masks_from=1500, gap=2, freeze_own_masks=(r"^patch_wise_id_bank\.",)),
    run=Run(steps=3000, batch=4, precision="amp", save_every=200, picture_every=500, log_every=20),
)

LARGE = replace(
    SMALL,
    name="default-large",
    paper="the second stage of the default weights: larger crops, more composed clips, own masks throughout",
    model=replace(SMALL.model, start="default-small"),
    data=replace(SMALL.data, sources=_mix(40, 10, 50, gap=5), crop=305),
    optim=replace(SMALL.optim, lr=2e-4, warmup=22, ema=0.9909),
    loss=replace(SMALL.loss, top_until=1, auxiliary=0.0, auxiliary_until=0),
    rollout=replace(SMALL.rollout, own_masks_from=0, freeze_own_masks=()),
    run=replace(SMALL.run, steps=1100),
)

LONG = replace(
    LARGE,
    name="default-long",
    paper="the third stage of the default weights: longer clips with wider gaps, at a high rate again",
    model=replace(SMALL.model, start="default-large"),
    data=replace(LARGE.data, sources=_mix(35, 10, 55), frames=5),
    optim=replace(LARGE.optim, lr=4e-4, warmup=60, ema=0.996),
    run=replace(LARGE.run, steps=3600, batch=3, seed=3),
)

FINE = replace(
    LARGE,
    name="default-fine",
    paper="the fourth stage of the default weights: crops that show contours",
    model=replace(SMALL.model, start="default-long"),
    data=replace(LARGE.data, sources=_mix(45, 10, 45), crop=401),
    optim=replace(LARGE.optim, lr=1.5e-4, warmup=40, ema=0.996),
    run=replace(LARGE.run, steps=1900, batch=2, seed=4),
)

LAST = replace(
    FINE,
    name="default-last",
    paper="one of two branches whose weights are averaged: many composed clips",
    model=replace(SMALL.model, start="default-fine"),
    data=replace(FINE.data, sources=_mix(30, 10, 60)),
    optim=replace(FINE.optim, lr=2e-4, warmup=30, ema=0.995),
    run=replace(FINE.run, steps=1180, seed=5),
)

WIDE = replace(
    LAST,
    name="default-wide",
    paper="the other branch: mostly videos, wide crops",
    data=replace(FINE.data, sources=_mix(55, 10, 35), crop=465),
    optim=replace(LAST.optim, lr=1.2e-4),
    run=replace(LAST.run, steps=880, seed=6),
)

CROWDS = replace(
    LAST,
    name="default-crowds",
    paper="on from the mean of the two branches with a second layer: many objects that meet; the encoder's first stages rest",
    model=Model("deaot-s", start="default-fast", deepen=True),
    data=replace(FINE.data, sources=_meeting(35, 10, 20, 35)),
    run=replace(LAST.run, steps=1680, seed=7),
)

CROWDS_WIDE = replace(
    CROWDS,
    name="default-crowds-wide",
    paper="one of two branches on from default-crowds: more videos, wide crops",
    model=Model("deaot-s", start="default-crowds"),
    data=replace(CROWDS.data, sources=_meeting(50, 10, 15, 25), crop=465),
    optim=replace(CROWDS.optim, lr=1.5e-4),
    run=replace(CROWDS.run, steps=1360, seed=21),
)

CROWDS_LONG = replace(
    CROWDS,
    name="default-crowds-long",
    paper="the other branch: longer clips, more crowds",
    model=Model("deaot-s", start="default-crowds"),
    data=replace(CROWDS.data, sources=_meeting(25, 10, 25, 40, gap=8), frames=5),
    run=replace(CROWDS.run, steps=1450, seed=22),
)

SHARP_LONG = replace(
    CROWDS_LONG,
    name="default-sharp-long",
    paper="one of two branches on from a mean of the stages before: things as large as in a frame at 480p; the encoder rests",
    model=Model("deaot-s", start="default-crowds-long", freeze=(r"^encoder\.",)),
    data=replace(CROWDS_LONG.data, sources=_meeting(35, 10, 15, 40, gap=8), window=(0.62, 1.0)),
    optim=replace(CROWDS.optim, lr=1.5e-4),
    run=replace(CROWDS.run, steps=1520, seed=31),
)

SHARP_WIDE = replace(
    CROWDS_WIDE,
    name="default-sharp-wide",
    paper="the other branch: whole frames, more videos",
    model=Model("deaot-s", start="default-crowds-long"),
    data=replace(CROWDS_WIDE.data, sources=_meeting(50, 10, 15, 25), crop=337, width=593, window=(0.6, 1.0)),
    optim=replace(CROWDS.optim, lr=1e-4),
    run=replace(CROWDS.run, steps=1330, seed=32),
)

NO_DAVIS_SMALL = replace(
    SMALL,
    name="default-no-davis-small",
    paper="default-small without video data: stills under a moving camera and composed scenes alone",
    data=replace(SMALL.data, sources=_pictures(40, 35, 25, gap=6)),
    run=replace(SMALL.run, steps=2000, seed=11),
)

NO_DAVIS_LARGE = replace(
    LARGE,
    name="default-no-davis-large",
    paper="its second stage: larger crops, own masks throughout",
    model=Model("deaot-t", start="default-no-davis-small"),
    data=replace(LARGE.data, sources=_pictures(35, 25, 40, gap=7), crop=337),
    optim=replace(LARGE.optim, lr=2.5e-4, ema=0.995),
    run=replace(LARGE.run, steps=860, batch=2, seed=12),
)

NO_DAVIS_FINE = replace(
    NO_DAVIS_LARGE,
    name="default-no-davis-fine",
    paper="its third stage: larger crops, more photographs",
    model=Model("deaot-t", start="default-no-davis-large"),
    data=replace(NO_DAVIS_LARGE.data, sources=_pictures(50, 25, 25, gap=7), crop=401),
    optim=replace(NO_DAVIS_LARGE.optim, warmup=40),
    run=replace(NO_DAVIS_LARGE.run, steps=580, seed=14),
)

FINETUNE = replace(
    LARGE,
    name="finetune",
    paper="a short training on one's own clips from finished weights: low rates, own masks throughout",
    model=Model("default"),
    data=Data((Source("folder", gap_max=5),), frames=5, crop=305, pipeline="deaot"),
    optim=replace(LARGE.optim, lr=5e-5, lr_min=5e-6, warmup=50, ema=0.99),
    run=replace(LARGE.run, steps=1000, save_every=100, picture_every=100),
)

RECIPES = (
    SMALL,
    LARGE,
    LONG,
    FINE,
    LAST,
    WIDE,
    CROWDS,
    CROWDS_WIDE,
    CROWDS_LONG,
    SHARP_LONG,
    SHARP_WIDE,
    NO_DAVIS_SMALL,
    NO_DAVIS_LARGE,
    NO_DAVIS_FINE,
    FINETUNE,
)
