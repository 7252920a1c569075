"""What the recordings of the official AOT family were made from: weights by name, clips by integer arithmetic, and the calls.

`Replay` makes the same calls on a model of ours and gives every recorded array by its name.
"""

from __future__ import annotations

import re
import zlib
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vosformer.inference.objects import merge_slots
from vosformer.memory import Memory
from vosformer.models.aost import AOST
from vosformer.models.identity_system import IdentitySystem
from vosformer.policy import EveryK, GivenOnly
from vosformer.protocol import Features, Merging, ObjectMasks, Reading

VARIANTS = {
    **{f"AOT{size}": f"aot-{size.lower()}" for size in "TSBL"},
    **{f"DeAOT{size}": f"deaot-{size.lower()}" for size in "TSBL"},
    "R50_AOTL": "r50-aot-l",
    "SwinB_AOTL": "swinb-aot-l",
    "R50_DeAOTL": "r50-deaot-l",
    "SwinB_DeAOTL": "swinb-deaot-l",
    "AOST": "aost",
    "R50_AOST": "r50-aost",
    "SwinB_AOST": "swinb-aost",
    "AOST_Share": "aost-share",
}

Clip = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def fill_value(name: str, shape: torch.Size) -> Tensor:
    """The float32 tensor that belongs to a name and a shape."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    noise = torch.randn(tuple(shape), generator=generator)
    if name.endswith("running_var"):
        return 1.0 + 0.1 * noise.abs()
    if name.endswith("running_mean"):
        return 0.1 * noise
    if len(shape) <= 1:
        return 1.0 + 0.1 * noise if name.rsplit(".", 1)[-1] == "weight" else 0.02 * noise
    return noise / (noise.numel() / shape[0]) ** 0.5


def fill(module: nn.Module) -> nn.Module:
    """Give every floating tensor of the state dict the value that its name asks for."""
    for name, tensor in module.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(fill_value(name, tensor.shape))
    return module.eval()


def _wave(t: NDArray[np.int64], period: int) -> NDArray[np.int64]:
    u = t % (2 * period)
    return np.minimum(u, 2 * period - u) * 255 // period


_SHIFTS = (0, 60, 120, 180, 30, 90, 150, 210, 45, 105, 165, 225, 15)


def _texture(y: NDArray[np.int64], x: NDArray[np.int64], kind: int) -> NDArray[np.int64]:
    a = _wave(3 * x + 2 * y + 11 * kind, 29 + 4 * kind)
    b = _wave(x - 4 * y + 7 * kind + 4096, 17 + 5 * kind)
    c = _wave(x * y // 8 + 5 * x + 13 * kind, 41 + 3 * kind)
    shift = _SHIFTS[kind % 13]
    channels = [((2 * p + q) // 3 + (i + 1) * shift) % 256 for i, (p, q) in enumerate([(a, b), (b, c), (c, a)])]
    return np.stack(channels, -1)


# id: shape, center y and x, half height and width, velocity y and x, in hundredths of the frame
_THREE = {1: ("box", 35, 30, 20, 14, 2, 4), 2: ("ellipse", 60, 68, 22, 16, -3, -2), 3: ("box", 22, 75, 12, 10, 3, -3)}
_TWELVE = {
    i: (
        "box" if i % 2 else "ellipse",
        18 + 32 * ((i - 1) // 4),
        14 + 24 * ((i - 1) % 4),
        11,
        8,
        1 if i % 3 else -2,
        2 if i % 2 else -1,
    )
    for i in range(1, 13)
}


def make_clip(size: tuple[int, int], frames: int, kind: str) -> Clip:
    """The clip "three", "newobj" (object 3 enters at frame 3) or "twelve"."""
    height, width = size
    objects = _TWELVE if kind == "twelve" else _THREE
    yy, xx = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    clip: Clip = []
    for t in range(frames):
        image = _texture(yy + t, xx - 2 * t + 64, 0)
        label = np.zeros(size, np.uint8)
        for i, (shape, y0, x0, hh, hw, vy, vx) in sorted(objects.items()):
            if kind == "newobj" and i == 3 and t < 3:
                continue
            dy, dx = yy - (y0 + vy * t) * height // 100, xx - (x0 + vx * t) * width // 100
            ry, rx = max(hh * height // 100, 1), max(hw * width // 100, 1)
            if shape == "box":
                inside = (abs(dy) <= ry) & (abs(dx) <= rx)
            else:
                inside = dy * dy * rx * rx + dx * dx * ry * ry <= rx * rx * ry * ry
            image = np.where(inside[..., None], _texture(dy + 512, dx + 512, i), image)
            label = np.where(inside, i, label).astype(np.uint8)
        clip.append((image.astype(np.uint8), label))
    return clip


def clip_crc(clip: Clip) -> int:
    """crc32 over all bytes of a clip."""
    crc = 0
    for image, label in clip:
        crc = zlib.crc32(label.tobytes(), zlib.crc32(image.tobytes(), crc))
    return crc


class Tracker:
    """Teacher-forced calls on one clip, as the official engine was called: masks are always the true ones."""

    def __init__(self, model: IdentitySystem, size: tuple[int, int], gap: int | None, slots: int, depth: int | None) -> None:
        self.model, self.slots = model, slots
        self.options = {} if depth is None else {"depth": depth}
        self.memory = Memory(GivenOnly(None) if gap is None else EveryK(gap, None))
        self.place = model.geometry.place(*size, None)
        self.number = 0

    def image(self, frame: NDArray[np.uint8]) -> Tensor:
        return self.model.geometry.image(frame, self.place)

    def targets(self, label: NDArray[np.uint8], given: bool) -> ObjectMasks:
        small = self.model.geometry.labels(torch.from_numpy(label).long(), self.place)
        k = self.model.slot_size
        own = torch.stack(
            [(small[None] == torch.arange(k * s + 1, k * s + k + 1)[:, None, None]).float() for s in range(self.slots)]
        )
        return ObjectMasks(own, (small != 0).float() - own.sum(1, keepdim=True), given)

    def begin(self, frame: NDArray[np.uint8], label: NDArray[np.uint8]) -> Tensor:
        """R and D: a given mask, and what the reference pass decodes."""
        features = self.model.encode(self.image(frame))
        targets = self.targets(label, True)
        decoded, readings = self.model.reference(features, targets)
        reading = readings[-1]
        entry = self.model.write(features, targets, None, None)
        for one, other in zip(entry.layers, decoded.layers, strict=True):
            assert all(torch.equal(one[name], other[name]) for name in other)
        self.memory.add(entry, self.number, True)
        return reading.logits

    def look(self, frame: NDArray[np.uint8]) -> tuple[Features, Reading]:
        """P and D."""
        self.number += 1
        features = self.model.encode(self.image(frame))
        return features, self.model.read(features, self.memory, **self.options)

    def update(self, features: Features, label: NDArray[np.uint8], reading: Reading) -> None:
        """U."""
        entry = self.model.write(features, self.targets(label, False), reading, self.memory)
        self.memory.add(entry, self.number, False)

    def step(self, frame: NDArray[np.uint8], label: NDArray[np.uint8]) -> Tensor:
        features, reading = self.look(frame)
        self.update(features, label, reading)
        return reading.logits

    def up(self, logits: Tensor) -> Tensor:
        return self.model.geometry.to_source(logits, self.place)


class Replay:
    """Every recorded array of one variant by its name."""

    def __init__(self, model: IdentitySystem, depth: int | None = None) -> None:
        self.model, self.depth = model, depth
        self.aligned = model.geometry.align_corners
        self.gap = getattr(model.policy, "gap", None)
        self.size = (97, 129) if self.aligned else (96, 128)
        # The engine of AOST always declares ten objects, so that none of its channels is ruled out.
        self.masks = not isinstance(model, AOST)

    @torch.inference_mode()
    def array(self, name: str) -> Tensor:
        """The array of that name; KeyError if there is no such name."""
        case = re.match(r"newobj_gap2|[a-z]+\d?", name)
        if case is None or f"_{case[0]}" not in dir(self):
            raise KeyError(f"nobody knows what the recorded array {name!r} is")
        return getattr(self, f"_{case[0]}")[name.removeprefix("trace_")]

    def forms(self, name: str) -> list[Tensor]:
        """The array of that name in each form in which it may have been recorded."""
        found = [self.array(name)]
        if name.startswith("trace_"):
            found += [x for key, x in self._trace.items() if key.startswith(f"{name.removeprefix('trace_')}|")]
        return found

    def tracker(self, gap: int | None, slots: int = 1, size: tuple[int, int] | None = None) -> Tracker:
        return Tracker(self.model, size or self.size, gap, slots, self.depth)

    def labels(self, upsampled: Tensor, objects: int) -> Tensor:
        return (upsampled[:, : objects + 1] if self.masks else upsampled).argmax(1)[0].byte()

    @cached_property
    def _base(self) -> dict[str, Tensor]:
        clip = make_clip(self.size, 6, "three")
        tracker = self.tracker(self.gap)
        tracker.begin(*clip[0])
        logits = [tracker.step(*clip[t]) for t in (1, 2, 3)]
        up = [tracker.up(each) for each in logits]
        return {
            "base_raw11_t1": logits[0][0],
            "base_logits_t123": torch.cat(logits)[:, :4],
            "base_up_t3_sub3": up[2][0, :4, ::3, ::3],
            "base_labels_t123": torch.stack([self.labels(each, 3) for each in up]),
        }

    @cached_property
    def _trace(self) -> dict[str, Tensor]:
        from vosformer.nn.maps import Grid
        from vosformer.nn.positions import sine_positions

        clip = make_clip(self.size, 6, "three")
        tracker = self.tracker(self.gap)
        grid = Grid(self.size[0] // 16 + self.aligned, self.size[1] // 16 + self.aligned)
        tokens = {
            "pos_emb": sine_positions(grid, 256, torch.device("cpu"), torch.float32),
            "ref_id_emb": self.model.embed(tracker.targets(clip[0][1], True)),
        }
        raw: list[list[Tensor]] = []
        hook = self.model.LSTT.register_forward_hook(lambda *call: raw.append([torch.cat(stream, 2) for stream in call[2][0]]))
        first = self.model.encode(tracker.image(clip[0][0]))
        reading = self.model.reference(first, tracker.targets(clip[0][1], True))[1][-1]
        tokens |= self._outputs("ref", reading, raw[-1])
        tracker.begin(*clip[0])
        features, reading = tracker.look(clip[1][0])
        tokens |= self._outputs("t1", reading, raw[-1])
        hook.remove()
        maps = dict(zip(("enc4", "enc8", "enc16", "enc_proj"), features.pyramid, strict=True))
        found = {}
        for name, x in tokens.items():
            name, _, form = name.partition("|")
            found[f"{name}_chmean|{form}".rstrip("|")] = x[0].mean(0)
            found[f"{name}_ch0|{form}".rstrip("|")] = x[0, :, 0]
        found |= {f"{name}_chmean": x[0].mean((1, 2)) for name, x in maps.items()}
        return found | {f"{name}_ch0": x[0, 0] for name, x in maps.items()}

    def _outputs(self, when: str, reading: Reading, raw: list[Tensor]) -> dict[str, Tensor]:
        """The outputs of the layers by name. A shared stack normalizes its last output only; it may have been recorded alone."""
        outputs = reading.carry.outputs
        if not self.model.LSTT.shared:
            return {f"{when}_lstt{i}": output for i, output in enumerate(outputs)}
        named = {f"{when}_lstt{i}": output for i, output in enumerate([*raw[:-1], outputs[-1]])}
        return named | {f"{when}_lstt0|alone": outputs[-1]} | {f"{when}_lstt{i}|normed": x for i, x in enumerate(outputs)}

    @cached_property
    def _gap2(self) -> dict[str, Tensor]:
        clip = make_clip(self.size, 6, "three")
        tracker = self.tracker(2)
        tracker.begin(*clip[0])
        logits = [tracker.step(*clip[t]) for t in range(1, 6)]
        assert len(tracker.memory.frames) == 3
        return {"gap2_logits_t345": torch.cat(logits[2:])[:, :4]}

    def _new_object(self, gap: int | None) -> dict[str, Tensor]:
        clip = make_clip(self.size, 6, "newobj")
        tracker = self.tracker(gap)
        tracker.begin(*clip[0])
        for t in (1, 2):
            tracker.step(*clip[t])
        _, reading = tracker.look(clip[3][0])
        after = tracker.begin(*clip[3])
        later = [tracker.step(*clip[t]) for t in (4, 5)]
        return {
            "logits_t3": reading.logits[0, :3],
            "logits_t3_after_ref": after[0, :4],
            "logits_t45": torch.cat(later)[:, :4],
        }

    @cached_property
    def _newobj(self) -> dict[str, Tensor]:
        return {f"newobj_{name}": array for name, array in self._new_object(self.gap).items()}

    @cached_property
    def _newobj_gap2(self) -> dict[str, Tensor]:
        return {f"newobj_gap2_{name}": array for name, array in self._new_object(2).items()}

    @cached_property
    def _resize(self) -> dict[str, Tensor]:
        clip = make_clip((100, 140), 3, "three")
        tracker = self.tracker(self.gap, size=(100, 140))
        tracker.begin(*clip[0])
        logits = [tracker.step(*clip[t]) for t in (1, 2)]
        up = [tracker.up(each) for each in logits]
        return {
            "resize_img0_sub4": tracker.image(clip[0][0])[0, :, ::4, ::4],
            "resize_logits_t1": logits[0][0, :4],
            "resize_up_t2_sub4": up[1][0, :4, ::4, ::4],
            "resize_labels_t12": torch.stack([self.labels(each, 3) for each in up]),
        }

    @cached_property
    def _many(self) -> dict[str, Tensor]:
        clip = make_clip(self.size, 3, "twelve")
        tracker = self.tracker(self.gap, slots=2)
        tracker.begin(*clip[0])
        merged = []
        for t in (1, 2):
            logits = tracker.step(*clip[t])
            up = tracker.up(logits)
            # Places 3 to 10 of the second slot are free.
            up[1, 3:] = -1e10 if self.masks else up[1, 3:]
            merged.append(merge_slots([up[:1], up[1:]], Merging.AOT))
        return {
            "many_merged_t2_sub5": merged[1][0, :13, ::5, ::5],
            "many_engine1_logits_t2": logits[1, :3],
            "many_labels_t12": torch.stack([each.argmax(1)[0].byte() for each in merged]),
        }

    @cached_property
    def _wide(self) -> dict[str, Tensor]:
        size = (273, 305) if self.aligned else (272, 304)
        clip = make_clip(size, 3, "three")
        tracker = self.tracker(self.gap, size=size)
        tracker.begin(*clip[0])
        logits = [tracker.step(*clip[t]) for t in (1, 2)]
        return {"wide_logits_t12_sub3": torch.cat(logits)[:, :4, ::3, ::3]}

    @cached_property
    def _info(self) -> dict[str, Tensor]:
        height, width = self.tracker(None, size=(100, 140)).place.network
        info = {
            "align_corners": self.aligned,
            "size": list(self.size),
            "test_long_term_mem_gap": 9999 if self.gap is None else self.gap,
            "lstt_num": self.model.LSTT.depth,
            "resize_input_size": [height, width],
        }
        return {"info_json": info}  # type: ignore[dict-item]
