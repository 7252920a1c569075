"""OneVOS: all of video object segmentation in one vision transformer (Li et al. 2024), papers/onevos.txt.

Tokens of the current frame attend to the remembered frames, to the reference frame (the last one, with its mask embedding) and to
themselves. The reference frame is run in `write`, since nothing in it depends on the frame that follows; the ablations where it does
(Table 3, DTS-t) run or choose it in `read`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from vosformer.encoders.convmae import CONVVIT_B, CONVVIT_L, CONVVIT_TINY, ConvViTSize
from vosformer.encoders.hybrid_vit import ConvViT, PlainViT
from vosformer.encoders.vit import VIT_B, ViTSize
from vosformer.errors import InputError
from vosformer.geometry import Geometry
from vosformer.memory.reference_bank import BankMessage
from vosformer.nn.attention import attend, join_gates
from vosformer.nn.fpn import FPN
from vosformer.nn.graphs import making_graph
from vosformer.nn.hybrid import HybridBlock, IdentityForm, marked_keys
from vosformer.nn.identity import IdentityBank
from vosformer.nn.maps import Grid, per_slot, to_map
from vosformer.nn.small_objects import dilate_small
from vosformer.nn.token_selector import TokenSelector, rate_loss, received_attention, take
from vosformer.nn.vit_blocks import initialize
from vosformer.policy import DynamicTokens, OneVOSQueue, Policy
from vosformer.protocol import Entry, Features, Layer, MemoryView, Merging, ObjectMasks, Reading, VOSModel
from vosformer.registry import Variant, build_from


@dataclass(frozen=True)
class OneVOSConfig:
    """Hyper-parameters; the defaults are the released OneVOS, and the ablations of the paper are arguments.

    Attributes:
        size: dimensions of the encoder: a ConvViT, or a plain ViT (Table 5c).
        decoder: channels of the decoder at stride 16.
        identities: K, objects of one slot.
        grid: side of the learned position table; 29 is that of the training crop of 464 pixels.
        decouple_current: reference tokens do not attend to the current frame (Table 3, Decoup1; Eq. 5).
        decouple_memory: reference tokens do not attend to the memory (Table 3, Decoup2; Eq. 6).
        form: how the mask embedding enters a layer: "gated" as released, "added" as in the paper's Eq. 1.
        mask_layers: which layers get it (Table 4a).
        selector: Dynamic Token Selector: none, "dts" (Eq. 7), or "dts-t", guided by the current frame (Table 4b).
        rate: DTS-Lr (Table 4b): the share of tokens that a loss asks every layer to select, 0.5 in the paper; None = it is free.
        gap: remember a frame every `gap` frames.
        cap: the paper's Cap, frames that the memory is meant for.
        keep: with a selector: the most tokens that stay when a layer's memory is full (Table 5b).
        keep_first: with a selector: the first frame's tokens stay besides; False: the paper to the letter.
    """

    size: ConvViTSize | ViTSize = CONVVIT_B
    decoder: int = 384
    identities: int = 10
    grid: int = 29
    decouple_current: bool = True
    decouple_memory: bool = True
    form: Literal["gated", "added"] = "gated"
    mask_layers: Literal["all", "first6", "last6"] = "all"
    selector: Literal["none", "dts", "dts-t"] = "none"
    rate: float | None = None
    gap: int = 10
    cap: int = 5
    keep: int = 520
    keep_first: bool = True


_RATE_WEIGHT = 2.0  # as in DynamicViT; the paper has none


class Lengths(NamedTuple):
    """How many of the keys of a layer belong to the memory, to the reference frame and to the current frame."""

    memory: int
    reference: int
    current: int


class Seen(NamedTuple):
    """The attention of one layer of a `read`, as a probe is shown it (`vosformer.inspection.onevos_attention` has one).

    Attributes:
        layer: its number, from 0.
        heads: number of heads.
        grid: of the current frame's tokens.
        q: [S,N,C], the current frame's queries.
        keys: parts [S,M,C]: memory (if there is any; it may be a view of its storage), reference, current frame.
        gate: [S,M,1] of all parts, or None.
        lengths: of the parts.
        reference: what the layer has of the reference frame; with a selector its `position` says which tokens these are.
        memory: what the frame is read with.
    """

    layer: int
    heads: int
    grid: Grid
    q: Tensor
    keys: list[Tensor]
    gate: Tensor | None
    lengths: Lengths
    reference: Layer
    memory: MemoryView


Probe = Callable[[Seen], None]


class OneVOS(VOSModel):
    """OneVOS. Sizes are multiples of 16."""

    merging = Merging.ONEVOS

    def __init__(self, config: OneVOSConfig) -> None:
        super().__init__()
        c = config
        self.config = c
        self.coupled = not (c.decouple_current and c.decouple_memory)
        if self.coupled and c.selector != "none":
            raise InputError(f"selector {c.selector!r} needs decouple_current and decouple_memory")
        self.slot_size = c.identities
        self.geometry = Geometry("resize", align_corners=False)
        self.policy: Policy = (
            OneVOSQueue(c.gap, c.cap) if c.selector == "none" else DynamicTokens(c.gap, c.cap, c.keep, c.keep_first)
        )
        if isinstance(c.size, ConvViTSize):
            blocks = _blocks(c, c.size.widths[2], c.size.depths[2], c.size.heads, c.size.ratios[2])
            self.backbone: ConvViT | PlainViT = ConvViT(c.size, c.grid, blocks)
            shortcuts: tuple[int, int, int] = c.size.widths
        else:
            width = c.size.width
            self.backbone = PlainViT(c.size, c.grid, _blocks(c, width, c.size.depth, c.size.heads, c.size.ratio))
            shortcuts = (width // 3, width // 2, width)
        initialize(self.backbone)
        for block in self.blocks:
            if block.selector is not None:
                block.selector.start()
        self.decoder = FPN(shortcuts[2], c.identities + 1, c.decoder, shortcuts, align_corners=False)
        self.patch_wise_id_bank = IdentityBank(c.identities, shortcuts[2], aligned=False)

    @property
    def blocks(self) -> list[HybridBlock]:
        """The transformer blocks, from the first to the last."""
        return list(self.backbone.blocks3)  # type: ignore[arg-type]

    def encode(self, image: Tensor) -> Features:
        """[B,3,H,W] -> maps at strides 4, 8 and 16, the tokens [B,N,C] that enter the blocks, and their first queries, keys, values.

        The first block's projections serve the frame twice: when it is read, and when it is the reference.
        """
        maps = self.backbone.start(image)
        return Features(image, (*maps, *self.blocks[0].project(maps[3])))

    def read(self, features: Features, memory: MemoryView, probe: Probe | None = None) -> Reading:
        """Return what the memory says about the frame (Eq. 6, second line, in every layer; then mask decoding).

        Args:
            features: of B samples.
            memory: of S slots, with at least one frame.
            probe: is shown the attention of every layer.

        Returns:
            Logits [S,1+K,h,w] at stride 4, and what `write` passes on.

        Raises:
            InputError: nothing is remembered yet, or by a policy that an ablation cannot work with.
        """
        x, carry = self._propagate(features, memory, probe)
        return Reading(self.decoder(to_map(x, _grid(features)), features.pyramid), carry)

    def write(self, features: Features, masks: ObjectMasks, reading: Reading | None, memory: MemoryView | None = None) -> Entry:
        """Return what the frame leaves behind as the next frame's reference (Eq. 6, first line, in every layer).

        Args:
            features: of B samples.
            masks: of S slots.
            reading: of the same frame, if it was read.
            memory: what the frame was read with, if there was any.

        Returns:
            Of each layer values that carry the mask embedding, keys that do not, and the factors `mark` [S,N,heads] that make them.
            The next frame attends to the raw keys, the memory holds the marked ones (Eq. 4). With a selector only the selected
            tokens; in training all of them and their gates.
        """
        mask = self.patch_wise_id_bank(masks)
        messages = self._messages(features, reading, memory)
        tokens = per_slot(features.pyramid[3], mask.shape[0])
        if self.coupled:
            # The next reading runs the reference through the layers; it then tells each bank what the frame leaves there.
            later: Layer = {}
            return Entry(({"tokens": tokens, "mask": mask}, *[later] * (len(self.blocks) - 1)), for_banks=messages)
        layers, recent = self._refer(features, mask, memory)
        return Entry(layers, recent, for_banks=self._with_frame_tokens(messages, tokens.shape[1]))

    def prepare_given(self, labels: Tensor) -> Tensor:
        """Return what the session does to the labels of a first frame, integers [H,W] at network size: see `dilate_small`."""
        return dilate_small(labels)

    def training_report(self) -> dict[str, float]:
        """Tell the running mean of the share of tokens that each layer's selector takes (r_l of Eq. 8)."""
        selectors = [block.selector for block in self.blocks]
        return {f"selected_{i}": float(one.ratio) for i, one in enumerate(selectors) if one is not None}

    def entry_loss(self, entry: Entry) -> Tensor | None:
        """Return what training adds to its loss for each written frame: that of DTS-Lr (`rate`), else nothing."""
        chosen = [message.reference for message in entry.for_banks if message.reference is not None]
        gates = [layer["gate"] for layer in chosen or entry.layers if "gate" in layer]
        if self.config.rate is None or not gates:
            return None
        return _RATE_WEIGHT * rate_loss(gates, self.config.rate)

    def _refer(
        self, features: Features, mask: Tensor, memory: MemoryView | None
    ) -> tuple[tuple[Layer, ...], tuple[Layer, ...]]:
        """Return the reference stream: tokens attend among themselves only."""
        x = per_slot(features.pyramid[3], mask.shape[0])
        layers: list[Layer] = []
        recent: list[Layer] = []
        for i, block in enumerate(self.blocks):
            final = i == len(self.blocks) - 1
            if final:
                # The last output is not used.
                k, v = block.project_keys(x)
            else:
                q, k, v = block.project(x) if i else _first(features, mask.shape[0])
            kept = _identified(block, k, v, mask)
            if not final:
                attended = attend(q, marked_keys(kept), kept["v"], block.heads)
            extra: dict[str, Tensor] = {}
            if block.selector is not None:
                z = block.selector.encode(x)
                if self.config.selector == "dts-t":
                    extra = {"z": z}
                else:
                    ragged = _ragged(x, {} if memory is None else memory.last(i))
                    kept = self._chosen(kept, block.selector(z), ragged)
            layers.append(kept)
            recent.append(extra)
            if not final:
                x = block.finish(x, attended)
        return tuple(layers), tuple(recent)

    def _propagate(self, features: Features, memory: MemoryView, probe: Probe | None) -> tuple[Tensor, tuple[BankMessage, ...]]:
        """Return the current stream through all blocks."""
        start = memory.last(0)
        if not start:
            raise InputError("nothing is remembered yet: the first frame must be written with given masks")
        x = per_slot(features.pyramid[3], next(iter(start.values())).shape[0])
        stream = (start["tokens"], start["mask"]) if self.coupled else None
        messages: list[BankMessage] = []
        slots, grid = x.shape[0], _grid(features)
        for i, block in enumerate(self.blocks):
            bank = memory.bank(i)
            if bank and "k" not in bank:
                raise InputError("this ablation of OneVOS cannot work with this memory policy; use OneVOSQueue")
            q, k, v = block.project(x) if i else _first(features, slots)
            message = BankMessage()
            if stream is not None:
                reference, stream = self._couple(block, stream, bank, k, v)
                message = BankMessage(reference)
            else:
                reference = memory.last(i)
                if "z" in reference and block.selector is not None:
                    # DTS-t: the reference's tokens are chosen when the current frame is known.
                    gate = block.selector(reference["z"], block.selector.encode(x))
                    full = {name: tensor for name, tensor in reference.items() if name != "z"}
                    reference = self._chosen(full, gate, _ragged(x, bank))
                    message = BankMessage(reference)
            keys, values, gate = _join(bank, reference, k, v)
            lengths = Lengths(sum(part.shape[1] for part in keys[:-2]), reference["k"].shape[1], k.shape[1])
            if memory.needs_usage(i):
                usage = received_attention(q, torch.cat(keys, 1), block.heads, gate)
                of_bank, of_reference, _ = torch.split(usage, list(lengths), 1)
                message = message._replace(bank_usage=of_bank, reference_usage=of_reference)
            messages.append(message)
            if probe is not None:
                probe(Seen(i, block.heads, grid, q, keys, gate, lengths, reference, memory))
            x = block.finish(x, attend(q, keys, values, block.heads, gate))
        return x, tuple(messages)

    def _couple(
        self, block: HybridBlock, stream: tuple[Tensor, Tensor], bank: Layer, k: Tensor, v: Tensor
    ) -> tuple[Layer, tuple[Tensor, Tensor]]:
        """One layer of the reference stream where it attends to the memory or the current frame, too (Eq. 2, Eq. 5)."""
        x, mask = stream
        q, own_k, own_v = block.project(x)
        own = _identified(block, own_k, own_v, mask)
        keys, values = [marked_keys(own)], [own["v"]]
        if bank and not self.config.decouple_memory:
            keys.insert(0, marked_keys(bank))
            values.insert(0, bank["v"])
        if not self.config.decouple_current:
            keys.append(k)
            values.append(v)
        return own, (block.finish(x, attend(q, keys, values, block.heads)), mask)

    def _chosen(self, layer: dict[str, Tensor], gate: Tensor, ragged: bool) -> dict[str, Tensor]:
        """Return the selected tokens of a layer; all, with their gates, in training and where shapes must be known ahead."""
        return {**layer, "gate": gate} if self.training or making_graph() else take(layer, gate, ragged)

    def _messages(self, features: Features, reading: Reading | None, memory: MemoryView | None) -> tuple[BankMessage, ...]:
        """Return what the reading of the frame says to the banks; where it matters, a frame that was not read is read for it."""
        if reading is not None:
            messages: tuple[BankMessage, ...] = reading.carry
            return messages
        if (self.coupled or self.config.selector == "dts-t") and memory is not None and memory.last(0):
            return self._propagate(features, memory, None)[1]
        return ()

    def _with_frame_tokens(self, messages: tuple[BankMessage, ...], tokens: int) -> tuple[BankMessage, ...]:
        """Add r_l N of each layer (Eq. 8), the tokens of a frame that a layer's memory is meant for."""
        ratios = [block.selector.ratio for block in self.blocks if block.selector is not None]
        if not ratios:
            return messages
        shares = [1.0] * len(ratios) if ratios[0].is_meta or making_graph() else torch.stack(ratios).tolist()
        messages = messages or (BankMessage(),) * len(ratios)
        return tuple(m._replace(frame_tokens=share * tokens) for m, share in zip(messages, shares, strict=True))


def _blocks(c: OneVOSConfig, width: int, depth: int, heads: int, ratio: int) -> list[HybridBlock]:
    marked = {"all": range(depth), "first6": range(6), "last6": range(depth - 6, depth)}[c.mask_layers]
    blocks = []
    for i in range(depth):
        form: IdentityForm = c.form if i in marked else "none"
        blocks.append(HybridBlock(width, heads, ratio, form, None if c.selector == "none" else TokenSelector(width)))
    return blocks


def _grid(features: Features) -> Grid:
    height, width = features.pyramid[2].shape[-2:]
    return Grid(height, width)


def _first(features: Features, slots: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values [S,N,C] of the first block."""
    q, k, v = (per_slot(each, slots) for each in features.pyramid[4:])
    return q, k, v


def _ragged(tokens: Tensor, known: Layer) -> bool:
    """Tell whether slots may select different numbers of tokens; what was kept for several slots once stays so when one is
    left.
    """
    return tokens.shape[0] > 1 or "gate" in known


def _identified(block: HybridBlock, k: Tensor, v: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """Keys, their factors, and values that carry the mask embedding (Eq. 1)."""
    v, mark = block.attn.identify(v, mask)
    # Slices of the joint projection would keep all of it in memory.
    kept = {"k": k.contiguous(), "v": v.contiguous()}
    return kept if mark is None else {**kept, "mark": mark}


def _join(bank: Layer, reference: Layer, k: Tensor, v: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
    """Keys and values of memory (marked keys), reference (RAW keys, marked values) and current frame, in this order; their gates."""
    keys, values = [reference["k"], k], [reference["v"], v]
    gates = [reference.get("gate"), None]
    if bank:
        keys.insert(0, marked_keys(bank))
        values.insert(0, bank["v"])
        gates.insert(0, bank.get("gate"))
    return keys, values, join_gates(list(zip(gates, keys, strict=True)))


_SMALL = {"size": CONVVIT_TINY, "decoder": 96}


def _variant(name: str, summary: str, **preset: Any) -> Variant:
    return Variant(name, "onevos", partial(build_from, OneVOS, OneVOSConfig(**preset), _SMALL), summary)


_SIZES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("onevos-b", "OneVOS, ConvViT-B", {}),
    ("onevos-l", "OneVOS, ConvViT-L", {"size": CONVVIT_L}),
    ("onevos-vit-b", "OneVOS, plain ViT-B", {"size": VIT_B}),
    ("onevos-tiny", "OneVOS, very small, to study and test", _SMALL),
)

VARIANTS = {
    variant.name: variant
    for name, summary, preset in _SIZES
    for variant in (
        _variant(name, f"{summary}, remembers every 10th frame", **preset),
        _variant(f"{name}-d", f"{summary}, Dynamic Token Selector and dynamic memory", **preset, selector="dts"),
    )
}
