"""Looking inside the other systems: maps of the weights that a frame is read or remembered with.

- SimVOS: the assignment of positions to prototypes, mean over the prototypes (paper Fig. 6).
- JointFormer: where a token of the current frame looks, layer by layer (Fig. 7), where a token of the newest reference frame looks
  (Fig. 8, in every mode), and what each object's compressed memory answers (Fig. 9).
- AOT, AOST, DeAOT: the long- and short-term attention of a token.

Weights are computed a second time from what goes into the model's own parts; a session that is not inspected does none of this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from vosformer.errors import InputError
from vosformer.geometry import Placement
from vosformer.inference.session import Session
from vosformer.models.identity_system import IdentitySystem
from vosformer.models.jointformer import JointFormer
from vosformer.models.simvos import SimVOS
from vosformer.nn.gpm import GatedPropagation
from vosformer.nn.joint import MovingReferences, sigmoid_weights
from vosformer.nn.lstt import LongTermAttention, ShortTermAttention
from vosformer.nn.maps import Grid
from vosformer.nn.topk import kth_largest
from vosformer.nn.vit_blocks import Projected

Floats = NDArray[np.float32]
Point = tuple[int, int]


class WeightMap(NamedTuple):
    """Weights of the positions of one frame.

    Attributes:
        name: what they are, e.g. "layer 2: long-term".
        frame: number of the frame that they lie on.
        weights: [h,w] at stride 16, mean over the heads.
    """

    name: str
    frame: int
    weights: Floats


@dataclass(frozen=True)
class FrameMaps:
    """What was seen while one frame was gone through.

    Attributes:
        number: of the frame.
        point: (x, y) in source pixels of the token that was looked from; None where the maps have none.
        maps: in the order of the layers.
    """

    number: int
    point: Point | None
    maps: tuple[WeightMap, ...]


class _Look(NamedTuple):
    """One attention: the queries [N,C] of a frame, and the keys [M,C] of each frame with its number; -1 = the frame itself."""

    name: str
    q: Tensor
    keys: list[tuple[int, Tensor]]
    heads: int
    topk: int | None = None
    window: tuple[nn.Module, int] | None = None  # a relative bias, and the side of the window


class _Seen(NamedTuple):
    """What hooks saw during one step: attentions to be looked at from a point, and maps that need none."""

    looks: list[_Look]
    maps: list[tuple[str, Tensor]]  # a name and weights [N], on the frame itself


def inspect_maps(
    session: Session, clip: Iterable[tuple[NDArray[np.uint8], ArrayLike | None]], point: Point | None = None
) -> tuple[FrameMaps, ...]:
    """Follow a clip, and look at the weights of the first slot in every frame.

    Args:
        session: a fresh one with one scale, without mirroring and with closer="off".
        clip: frames uint8 RGB [H,W,3] and labels as for `Session.step`, in order.
        point: (x, y) in source pixels of the token that is looked from; None = the middle of the first object in each frame.

    Raises:
        InputError: the model cannot be looked into in this way, the point is outside, or there is nothing to see.
    """
    model = session.model
    if not isinstance(model, SimVOS | JointFormer | IdentitySystem):
        raise InputError(
            f"the maps of a {type(model).__name__} are not known; those of AOT, AOST, DeAOT, SimVOS and JointFormer are"
        )
    if session.closer is not None:
        raise InputError('weights are looked at in the whole frame: build the session with closer="off" (now: looks closer)')
    views = []
    for number, (image, labels) in enumerate(clip):
        height, width = image.shape[:2]
        if point is not None and not (0 <= point[0] < width and 0 <= point[1] < height):
            raise InputError(f"the point {point} is outside of frames of {width} x {height} pixels")
        seen = _Seen([], [])
        frames = _remembered(session)
        with _hooks(model, frames, seen), torch.inference_mode():
            out = session.step(image, labels)
        placement = session.placement(height, width)
        at = point or _middle(out.labels)
        grid = Grid(-(-placement.network[0] // 16), -(-placement.network[1] // 16))
        maps = [WeightMap(name, number, _as_map(weights, grid)) for name, weights in seen.maps]
        if at is not None:
            token = _token(at, placement, grid, model.geometry.align_corners)
            with torch.inference_mode():
                maps += [each for look in seen.looks for each in _from_point(look, token, grid, number)]
        if maps:
            views.append(FrameMaps(number, at if seen.looks else None, tuple(maps)))
    if not views:
        raise InputError("there is nothing to see: the clip needs a mask and a second frame, and SimVOS prototypes (simvos-bs)")
    return tuple(views)


def _remembered(session: Session) -> list[int]:
    """Numbers of the frames in the first cohort's memory, in the order that they are read."""
    cohorts = session.cohorts
    if not cohorts:
        return []
    memory, began = cohorts[0].memory, cohorts[0].began
    numbers = [frame.number + began for frame in memory.frames]
    if memory.last_frame is not None and memory.last_frame not in memory.frames:
        numbers.append(memory.last_frame.number + began)
    return numbers


@contextmanager
def _hooks(model: nn.Module, frames: list[int], seen: _Seen) -> Iterator[None]:
    """While inside, `seen` is filled by what the model does."""
    with ExitStack() as stack:

        def before(module: nn.Module, see: Callable[..., None]) -> None:
            stack.callback(module.register_forward_pre_hook(lambda _, inputs: see(*inputs)).remove)

        def instead(owner: Any, name: str, see: Callable[..., None]) -> None:
            """Call `see` with the arguments of a method, then the method."""
            method, own = getattr(owner, name), name in vars(owner)

            def both(*inputs: Any, **options: Any) -> Any:
                see(*inputs, **options)
                return method(*inputs, **options)

            setattr(owner, name, both)
            stack.callback(*((setattr, owner, name, method) if own else (delattr, owner, name)))

        if isinstance(model, SimVOS):
            _watch_prototypes(model, before, seen)
        elif isinstance(model, JointFormer):
            _watch_joint(model, instead, frames, seen)
        elif isinstance(model, IdentitySystem):
            _watch_identities(model, before, frames, seen)
        yield


def _watch_prototypes(model: SimVOS, before: Callable[..., None], seen: _Seen) -> None:
    for name, module in (("foreground prototypes", model.refine_front), ("background prototypes", model.refine_back)):
        if module is not None:

            def see(x: Tensor, mask: Tensor, grid: Grid, suppress: bool, name: str = name, module: Any = module) -> None:
                if not any(known == name for known, _ in seen.maps):  # the first object
                    seen.maps.append((name, module.assignment(x[:1], mask[:1], grid, suppress)[0].mean(1)))

            before(module, see)


def _watch_joint(model: JointFormer, instead: Callable[..., None], frames: list[int], seen: _Seen) -> None:
    heads = model.config.size.heads
    layers = iter(range(10**9))

    def attention(current: Any, past: Sequence[Any], topk: int | None) -> None:
        layer = next(layers)
        if layer < model.config.depth - model.joint[0]:  # the first part of the slots
            keys = torch.cat([part["k"][0] for part in past]) if past else current.k[0][:0]
            parts = list(zip(frames, torch.split(keys, current.q.shape[1]), strict=False)) if past else []
            name = f"layer {layer + model.joint[0]}: current frame"
            seen.looks.append(_Look(name, current.q[0], [*parts, (-1, current.k[0])], heads, topk))

    def enhancement(x: Tensor, token: Tensor, grid: Grid) -> None:
        embed = model.enhance_embed
        if embed is None:
            return
        tokens, one = embed(x) + model._place(grid), embed(token) + model.positions[:, :1]
        weights = sigmoid_weights(model.enhance_blocks[0], tokens, one).mean(2)  # type: ignore[arg-type]
        # The objects may be read in several parts.
        begun = len(seen.maps) + 1
        seen.maps.extend((f"compressed memory, object {begun + i}", each) for i, each in enumerate(weights))

    def reference(x: Tensor, *_: Any) -> None:
        if model.config.mode != "d" or any("reference" in look.name for look in seen.looks):
            return
        tokens = x[:1]
        for i in range(model.config.depth):
            block = model._block(i)
            q, k, _v = block.project(tokens)
            seen.looks.append(_Look(f"layer {i}: as reference", q[0], [(-1, k[0])], heads))
            tokens = block(tokens)

    def moving(references: MovingReferences, current: Projected, tokens: int) -> None:
        # In modes a to c references move on while a frame is read: to themselves (b), and to that frame (a, c).
        name = f"layer {references.next}: as reference"
        if any(look.name == name for look in seen.looks):
            return  # the objects may be read in several parts
        q, k = (torch.split(y[0], tokens) for y in references.projected[:2])
        own = list(zip(frames, k, strict=False))
        own = own[-1:] if model.config.mode == "c" else own
        now = [] if model.config.mode == "b" else [(-1, current.k[0])]
        seen.looks.append(_Look(name, q[len(frames) - 1], [*own, *now], heads))

    instead(model, "_attend", attention)
    instead(model, "_remember", reference)
    instead(MovingReferences, "attend", moving)
    if len(model.enhance_blocks):
        instead(model, "enhance", enhancement)


def _watch_identities(model: IdentitySystem, before: Callable[..., None], frames: list[int], seen: _Seen) -> None:
    counts: dict[nn.Module, int] = {}

    def layer_of(module: nn.Module, first: int) -> int:
        """Return a shared block is used for one layer after the other."""
        counts[module] = counts.get(module, 0) + 1
        return first + counts[module] - 1

    def watch(module: nn.Module, layer: int) -> None:
        def add(kind: str, q: Tensor, past: Sequence[Any], heads: int, window: tuple[nn.Module, int] | None) -> None:
            if not frames:
                return  # a first frame looks at itself alone
            keys = torch.cat([each["k"][0] for each in past])
            numbers = frames[-1:] if window else frames
            parts = list(zip(numbers, torch.split(keys, q.shape[1]), strict=False))
            seen.looks.append(_Look(f"layer {layer_of(module, layer)}: {kind}", q[0], parts, heads, window=window))

        if isinstance(module, LongTermAttention):
            before(module, lambda q, memory: add("long-term", q, [memory], module.heads, None))
        elif isinstance(module, ShortTermAttention):
            bias = module.relative_emb_k
            before(module, lambda q, past, _: add("short-term", q, past, bias.groups, (bias, module.window)))
        elif isinstance(module, GatedPropagation):
            near = (module.relative_emb_k, module.window) if module.window else None
            kind = "short-term" if near else "long-term"
            before(module, lambda _, q, past, __: add(kind, q, past, module.heads, near))

    for layer in range(1 if model.LSTT.shared else model.LSTT.depth):
        block = model.LSTT.layer if model.LSTT.shared else model.LSTT.layers[layer]
        for name in ("long_term_attn", "short_term_attn"):
            part = getattr(block, name)
            if part is not None:
                watch(part, layer)


def _from_point(look: _Look, token: int, grid: Grid, number: int) -> list[WeightMap]:
    """Return the weights of one query over the positions of each frame, mean over the heads."""
    heads = look.heads
    q = look.q[token].float().view(heads, -1)
    keys = torch.cat([k for _, k in look.keys]).float()
    scores = torch.einsum("hd,mhd->hm", q * q.shape[1] ** -0.5, keys.view(len(keys), heads, -1))
    if look.window is not None:
        scores = scores + _bias(look.window, look.q[token].float(), token, grid).repeat(1, len(look.keys))
    if look.topk:
        remembered = scores.shape[1] - len(look.keys[-1][1])
        if look.topk < remembered:
            past = scores[:, :remembered]
            past.masked_fill_(past < kth_largest(past, look.topk), -torch.inf)
    weights = scores.softmax(1).mean(0)
    parts = torch.split(weights, [len(k) for _, k in look.keys])
    return [
        WeightMap(look.name, number if frame < 0 else frame, _as_map(part, grid))
        for (frame, _), part in zip(look.keys, parts, strict=True)
    ]


def _bias(window: tuple[nn.Module, int], q: Tensor, token: int, grid: Grid) -> Tensor:
    """Return what the relative bias adds at every position [heads,N]; -inf outside of the window."""
    relative, side = window[0](), window[1]
    heads = relative.weight.shape[0]
    offsets = torch.einsum("hod,hd->ho", relative.weight.float(), q.view(heads, -1)) + relative.bias.float()
    rows, columns = torch.arange(grid.height, device=q.device), torch.arange(grid.width, device=q.device)
    down, right = rows - token // grid.width + side // 2, columns - token % grid.width + side // 2
    inside = ((down >= 0) & (down < side))[:, None] & ((right >= 0) & (right < side))[None]
    positions = (down[:, None] * side + right[None]).where(inside, 0).flatten()
    out: Tensor = offsets[:, positions].masked_fill(~inside.flatten(), -torch.inf)
    return out


def _middle(labels: NDArray[np.int32]) -> Point | None:
    """Return the pixel of the object with the lowest id that is nearest to its center; None without objects."""
    ids = np.unique(labels[labels != 0])
    if not len(ids):
        return None
    y, x = np.nonzero(labels == ids[0])
    nearest = np.argmin((y - y.mean()) ** 2 + (x - x.mean()) ** 2)
    return int(x[nearest]), int(y[nearest])


def _token(point: Point, placement: Placement, grid: Grid, align_corners: bool) -> int:
    """Return the token that shows a source pixel."""
    x = placement.left + (point[0] + 0.5) * placement.inner[1] / placement.source[1]
    y = placement.top + (point[1] + 0.5) * placement.inner[0] / placement.source[0]
    half = 0.5 if align_corners else 0.0
    row, column = min(int(y / 16 + half), grid.height - 1), min(int(x / 16 + half), grid.width - 1)
    return row * grid.width + column


def _as_map(weights: Tensor, grid: Grid) -> Floats:
    return weights.float().cpu().reshape(grid.height, grid.width).numpy()
