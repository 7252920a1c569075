"""Weights like the default ones in three stages, those without DAVIS, what made the packaged ones on a GPU, and fine-tuning.

One row a stage, with every number that is not the same in all of them: no row takes anything over from another.
"""

from __future__ import annotations

from vosformer.train.recipe import Data, DataSource, Loss, Model, Optim, Recipe, Rollout, Run

_ENCODER = (r"^encoder\.",)


def _stage(
    name: str,
    paper: str,
    model: Model,
    clips: dict[str, tuple[int, int]],
    *,
    frames: int,
    crop: int,
    batch: int,
    steps: int,
    seed: int,
    lr: float,
    warmup: int,
    ema: float,
    lr_min: float = 2e-5,
    truth_until: int = 0,
) -> Recipe:
    """Return a stage of AOT's and DeAOT's training (AOST Sec. 4.3), small enough for a CPU or for minutes of a GPU.

    Args:
        name: of the recipe.
        paper: what it does.
        model: what is trained.
        clips: kind -> (share of the clips in percent, largest gap between two frames).
        frames: T.
        crop: side, pixels.
        batch: clips of a step.
        steps: of the optimizer.
        seed: of everything random.
        lr: the highest rate; it falls to `lr_min`. The encoder has a tenth of what is above that.
        warmup: steps.
        ema: decay of the moving average of the weights.
        lr_min: the lowest rate.
        truth_until: step until which the memory gets the true masks, and all pixels and the first frame's own decoding count, too.
    """
    sources = tuple(DataSource(kind, repeat=share, gap_max=gap) for kind, (share, gap) in clips.items())
    return Recipe(
        name=name,
        paper=paper,
        model=model,
        data=Data(sources, frames=frames, crop=crop, window=(0.62, 1.0), pipeline="composed"),
        optim=Optim(
            lr=lr,
            lr_min=lr_min,
            lr_scales=tuple((pattern, 0.1) for pattern in _ENCODER),
            weight_decay=0.03,
            no_decay=(r"relative_emb_v", r"conv_out"),
            warmup=warmup,
            clip=5.0,
            ema=ema,
        ),
        loss=Loss(top_until=max(1, truth_until), auxiliary=float(truth_until > 0), auxiliary_until=truth_until),
        rollout=Rollout(own_masks_from=truth_until, gap=2),
        run=Run(steps=steps, batch=batch, precision="amp", seed=seed, save_every=100, log_every=20),
    )


FINETUNE = Recipe(
    name="finetune",
    paper="a short training on one's own clips from finished weights: low rates, own masks throughout",
    model=Model("default"),
    data=Data((DataSource("folder", gap_max=5),), frames=5, crop=305, pipeline="deaot"),
    optim=Optim(
        lr=5e-5,
        lr_min=5e-6,
        lr_scales=((r"^encoder\.", 0.1),),
        weight_decay=0.03,
        no_decay=(r"relative_emb_v", r"conv_out"),
        warmup=50,
        clip=5.0,
        ema=0.99,
    ),
    loss=Loss(top_until=1),
    rollout=Rollout(own_masks_from=0, gap=2),
    run=Run(steps=1000, batch=4, precision="amp", save_every=100, picture_every=100, log_every=20),
)

RECIPES = (
    _stage(
        "default-static",
        "pictures only: groups, parts and look-alikes under a moving camera, a step or a few at a time",
        Model("deaot-s", options=(("freeze_at", 1),)),
        {"stills": (30, 3), "groups": (40, 3), "crowds": (30, 3)},
        frames=3, crop=241, batch=4, steps=4000, seed=51, lr=4e-4, warmup=150, ema=0.995, truth_until=2000,
    ),
    _stage(
        "default-video",
        "real clips and composed ones with longer gaps, own masks throughout",
        Model("deaot-s", start="default-static"),
        {"videos": (40, 8), "stills": (10, 5), "groups": (20, 5), "crowds": (30, 7)},
        frames=4, crop=305, batch=4, steps=3000, seed=52, lr=3e-4, warmup=60, ema=0.995,
    ),
    _stage(
        "default-finish",
        "crops that show contours; the encoder rests",
        Model("deaot-s", start="default-video", freeze=_ENCODER),
        {"videos": (40, 8), "stills": (10, 4), "groups": (20, 4), "crowds": (30, 6)},
        frames=4, crop=337, batch=2, steps=1200, seed=43, lr=2e-4, warmup=20, ema=0.99,
    ),
    _stage(
        "default-no-davis-finish",
        "default-video and -finish in one, without video data: on from default-static on pictures alone",
        Model("deaot-s", start="default-static"),
        {"stills": (40, 7), "groups": (25, 5), "crowds": (35, 7)},
        frames=4, crop=401, batch=2, steps=1500, seed=54, lr=2.5e-4, warmup=40, ema=0.995,
    ),
    _stage(
        "default-more",
        "on from finished weights on a GPU: larger batches and longer gaps",
        Model("deaot-s", options=(("freeze_at", 1),), start="default"),
        {"videos": (35, 8), "stills": (10, 5), "groups": (20, 5), "crowds": (35, 8)},
        frames=4, crop=321, batch=16, steps=2500, seed=81, lr=3e-4, lr_min=4e-5, warmup=100, ema=0.999,
    ),
    _stage(
        "default-more-finish",
        "longer clips and crops that show contours",
        Model("deaot-s", options=(("freeze_at", 1),), start="default-more"),
        {"videos": (35, 8), "stills": (10, 5), "groups": (20, 5), "crowds": (35, 8)},
        frames=5, crop=417, batch=8, steps=1070, seed=181, lr=1e-4, lr_min=1e-5, warmup=20, ema=0.999,
    ),
    FINETUNE,
)  # fmt: skip
