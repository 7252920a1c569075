"""JointFormer (Sec. 4.1 and 4.2.2); what the paper does not state is from the released script."""

from __future__ import annotations

from dataclasses import replace

from vosformer.train.recipe import Data, DataSource, Loss, Model, Optim, Recipe, Rollout, Run

_DAVIS = DataSource("davis2017", repeat=5)
_YOUTUBE = DataSource("youtube2019", gap_divisor=5)

_STATIC = Recipe(
    name="jointformer-static",
    paper="JointFormer Sec. 4.1, pre-training on synthetic video from still pictures",
    model=Model("jointformer-b"),
    data=Data(
        (
            DataSource("fss1000"),
            DataSource("duts-tr"),
            DataSource("duts-te"),
            DataSource("ecssd"),
            DataSource("big", repeat=5),
            DataSource("hrsod", repeat=5),
        ),
        frames=3,
        crop=384,
        pipeline="jointformer",
        max_objects=1,
    ),
    optim=Optim(
        algorithm="adamw",
        lr=5e-5,
        lr_min=0.0,
        lr_scales=((r"^(?!decoder\.)", 0.1),),
        weight_decay=0.05,
        no_decay_1d=False,
        schedule="step",
        step_at=(),
        step_factor=0.1,
        clip=0.1,
        ema=None,
    ),
    loss=Loss(ce=1.0, jaccard=0.0, dice=1.0, top_share=0.15, top_from=20_000, top_until=70_000, frames="sum"),
    rollout=Rollout(own_masks_from=0, feedback="soft", memory="random", references=2, update_probability=0.6, permute=False),
    run=Run(steps=150_000, batch=24),
)

_MAIN = replace(
    _STATIC,
    name="jointformer-main",
    paper="JointFormer Sec. 4.1, main training on DAVIS 2017 and YouTube-VOS 2019; the last 10,000 steps without rotation and shear",
    model=replace(_STATIC.model, start="jointformer-static"),
    data=replace(
        _STATIC.data,
        sources=(_DAVIS, _YOUTUBE),
        frames=4,
        max_objects=3,
        gap_curriculum=((0, 5), (15_000, 10), (45_000, 15), (135_000, 5)),
        plain_from=150_000,
    ),
    optim=replace(_STATIC.optim, step_at=(100_000,)),
    run=Run(steps=160_000, batch=12),
)

_BL30K = replace(
    _MAIN,
    name="jointformer-bl30k",
    paper="JointFormer Sec. 4.1, optional pre-training on BL30K",
    data=replace(
        _MAIN.data,
        sources=(DataSource("bl30k"),),
        pipeline="jointformer-bl30k",
        gap_curriculum=((0, 5), (30_000, 10), (90_000, 15), (240_000, 5)),
        plain_from=None,
    ),
    optim=replace(_STATIC.optim, step_at=(200_000,)),
    run=Run(steps=300_000, batch=12),
)


def _other(name: str, sources: tuple[DataSource, ...], paper: str) -> Recipe:
    """Return the settings of the main training on another set."""
    return replace(_MAIN, name=name, paper=paper, data=replace(_MAIN.data, sources=sources))


def _finetune(
    name: str, source: DataSource, paper: str, steps: int, plain: int, falls: int, loss: tuple[int, int], ignored: float = 1.0
) -> Recipe:
    """Return a short stage after the main training."""
    curriculum = tuple((round(share * plain), gap) for share, gap in ((0.0, 5), (0.1, 10), (0.3, 15), (0.9, 5)))
    return replace(
        _MAIN,
        name=name,
        paper=paper,
        model=replace(_MAIN.model, start="jointformer-main"),
        data=replace(_MAIN.data, sources=(source,), gap_curriculum=curriculum, plain_from=plain, ignored=ignored),
        optim=replace(_MAIN.optim, step_at=(falls,)),
        loss=replace(_MAIN.loss, top_from=loss[0], top_until=loss[1]),
        run=replace(_MAIN.run, steps=steps),
    )


RECIPES = (
    _STATIC,
    _BL30K,
    _MAIN,
    _other("jointformer-mose", (DataSource("mose"),), "JointFormer Sec. 4.2.2: MOSE with the settings of the main training"),
    _finetune(
        "jointformer-vost",
        DataSource("vost", gap_divisor=5),
        "JointFormer Sec. 4.2.2: 40,000 steps on VOST after the main training",
        steps=40_000,
        plain=30_000,
        falls=20_000,
        loss=(4_000, 13_000),
        ignored=0.2,
    ),
    _finetune(
        "jointformer-lvos",
        DataSource("lvos", gap_divisor=5),
        "JointFormer Sec. 4.2.2: 10,000 steps on LVOS after the main training",
        steps=10_000,
        plain=5_000,
        falls=3_000,
        loss=(1_000, 2_500),
    ),
    _other("jointformer-visor", (DataSource("visor"),), "JointFormer Sec. 4.2.2: VISOR with the settings of the main training"),
)
