"""The click network: from clicks, boxes and scribbles to a mask."""

from __future__ import annotations

from vosformer.train.recipe import Clicks, Data, DataSource, Model, Optim, Recipe, Run

CLICKS = Recipe(
    name="clicks",
    paper="RITM (Sofiiuk et al. 2021): simulated clicks, the previous mask as input; MobileNetV2 from ImageNet",
    task="clicks",
    model=Model("clicks"),
    data=Data(
        (DataSource("videos", repeat=22), DataSource("stills", repeat=60), DataSource("composed", repeat=18)),
        frames=1,
        crop=256,
        max_objects=1,
    ),
    optim=Optim(
        lr=1.2e-3,
        lr_min=1e-5,
        lr_scales=((r"^encoder\.", 0.25),),
        weight_decay=0.01,
        warmup=100,
        clip=3.0,
        ema=0.998,
    ),
    clicks=Clicks(),
    run=Run(steps=5600, batch=8, accumulate=1, precision="fp32", workers=0, save_every=100, log_every=20, picture_every=0),
)

RECIPES = (CLICKS,)
