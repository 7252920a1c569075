"""A model's `encode`, `read` and `write` as functions of named tensors, for one slot over a memory of fixed capacity.

Names are those of a session's state: "bank/0/k" is a named tensor of layer 0 of the bank, "last/0/k" one of the last frame. Each
graph handles one slot, so that objects that come or go never change a shape; the frame's features are computed once for all.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from vosformer.geometry import MEAN, STD
from vosformer.models.simvos import SimVOS, token_masks
from vosformer.nn.graphs import as_graph
from vosformer.nn.maps import Grid, to_tokens
from vosformer.policy import DynamicTokens, RememberedFrame
from vosformer.protocol import Entry, Features, Layer, ObjectMasks, Reading, VOSModel

Tensors = dict[str, Tensor]


class GraphMemory:
    """The `MemoryView` of a graph: named tensors that are inputs, with gates for the places of the bank that hold nothing.

    Args:
        values: name -> tensor, see `Graphs`.
        ranks: the graph also returns the attention that remembered tokens receive.
    """

    frames: Sequence[RememberedFrame] = (RememberedFrame(0, True),)
    last_frame: RememberedFrame | None = RememberedFrame(1, False)

    def __init__(self, values: Mapping[str, Tensor], ranks: bool = False) -> None:
        self._values = values
        self._ranks = ranks
        self.asked: set[str] = set()  # layers that were looked at

    @property
    def token(self) -> Tensor | None:
        return self._values.get("token")

    def bank(self, layer: int) -> Layer:
        self.asked.add(str(layer))
        found = named(self._values, f"bank/{layer}/")
        return {**found, "gate": self._values.get(f"valid/{layer}", self._values["valid"])} if found else {}

    def last(self, layer: int) -> Layer:
        self.asked.add(str(layer))
        return named(self._values, f"last/{layer}/")

    def references(self, layer: int) -> Sequence[Layer]:
        last = self.last(layer)
        length = next(iter(last.values())).shape[1]
        return [self.bank(layer), {**last, "gate": self._values["last_valid"].expand(-1, length, -1)}]

    def lengths(self, layer: int) -> Sequence[int]:
        return [next(iter(self.bank(layer).values())).shape[1]]

    def needs_usage(self, layer: int) -> bool:
        return self._ranks


def named(values: Mapping[str, Tensor], prefix: str) -> Tensors:
    """Return those tensors whose names begin so, without the prefix."""
    return {name.removeprefix(prefix): tensor for name, tensor in values.items() if name.startswith(prefix)}


class Graph(nn.Module):
    """One graph: a function of named tensors as a module that takes them by position.

    Args:
        model: whose parameters it uses.
        function: from named tensors to named tensors.
        inputs: an example of each input.

    Attributes:
        outputs: an example of each output.
    """

    def __init__(self, model: VOSModel, function: Callable[[Tensors], Tensors], inputs: Tensors) -> None:
        super().__init__()
        self.model = model
        # Contiguous, as a runtime gives them: how a map happens to lie in memory here must not become a part of the graph.
        self.inputs = {name: tensor.contiguous() for name, tensor in inputs.items()}
        self._function = function
        with torch.no_grad(), as_graph():
            self.outputs = function(self.inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        with as_graph():
            return tuple(self._function(dict(zip(self.inputs, tensors, strict=True))).values())


@dataclass
class Graphs:
    """The graphs of a model at one size of the network's input, by name, and what the runner has to know about the memory.

    `encode` makes named features of a frame (float32 RGB [1,3,H,W], 0 to 255, as large as the network's input). `read` takes these,
    the memory of a slot, "valid" [1,M,1] (1 where the bank holds a token; OneVOS-D: "valid/0" of layer 0 and so on) and "last_valid"
    [1,1,1]; it gives float32 "logits" [1,1+K,h,w] and what `write` needs of it. `write` takes the masks "own" [1,K,H,W] and "others"
    [1,1,H,W] as well, and gives "layers/0/k", "recent/0/k1" and "token", what the frame leaves behind. `begin` is the `write` of a
    frame that was not read (`begins` is "unread"), or of one with given masks ("given"). `rank` is a `read` that tells the attention
    which remembered tokens received, too ("0/bank_usage" and "0/reference_usage", those of the bank and of the last frame).

    Attributes:
        graphs: name -> graph.
        begins: when `begin` is used; empty if there is no difference.
        quota: of each layer the share r_l of a frame's tokens that the memory is meant for, if that is counted in tokens.
        cohort: objects of one cohort that `write` sees at once with "index", the place of its own; 0 = it sees its own slot only.
    """

    graphs: dict[str, Graph] = field(default_factory=dict)
    begins: str = ""
    quota: tuple[float, ...] = ()
    cohort: int = 0


@torch.no_grad()
def make_graphs(
    model: VOSModel, size: tuple[int, int], capacity: int, dtype: torch.dtype, cohort: int, options: Mapping[str, Any]
) -> Graphs:
    """Run a model once over an example, and make graphs with the shapes that come of it.

    Args:
        model: ready for inference, in `dtype`.
        size: (H, W) of the network's input.
        capacity: most frames in the bank.
        dtype: of the features and the memory.
        cohort: objects that may begin together, where `write` looks at all of them.
        options: of the model's `read`.
    """
    made = Graphs()
    encode = Graph(model, partial(_encode, model, dtype), {"frame": torch.full((1, 3, *size), 100.0)})
    features = encode.outputs
    masks = {"own": _stripes(model.slot_size, *size).to(dtype), "others": torch.zeros(1, 1, *size, dtype=dtype)}
    if isinstance(model, SimVOS) and model.config.prototypes is not None:
        made.cohort = cohort
        masks["own"] = _stripes(cohort, *size).to(dtype)
        masks["index"] = torch.zeros(1, dtype=torch.int64)
        write: Callable[..., Tensors] = partial(_write_prototypes, model)
    else:
        write = partial(_write, model, True, None)
    memory = _example_memory(write({**features, **masks}, None), capacity, model)
    with as_graph():
        view = GraphMemory(memory)
        carry = model.read(_features(features), view, **options).carry
    # AOST at a smaller depth leaves the deeper layers alone.
    memory = {name: tensor for name, tensor in memory.items() if "/" not in name or name.split("/")[1] in view.asked}
    first = Graph(model, partial(write, layers=view.asked), {**features, **masks})
    ranked = isinstance(model.policy, DynamicTokens)
    read = Graph(model, partial(_read, model, False, options), {**features, **memory})
    made.graphs = {"encode": encode, "read": read, "write": first}
    if ranked:
        made.graphs["rank"] = Graph(model, partial(_read, model, True, options), {**features, **memory})
        made.quota = _shares(model, features, masks)
    kept = named(read.outputs, "carry/")
    if kept and not ranked:
        with_carry = {**features, **masks, **{f"carry/{name}": tensor for name, tensor in kept.items()}}
        later = partial(_write, model, False, pytree.tree_structure(carry), layers=view.asked)
        made.graphs["write"] = Graph(model, later, with_carry)
        made.graphs["begin"] = first
        made.begins = "unread" if "token" in first.outputs else "given"
    return made


def _stripes(count: int, height: int, width: int) -> Tensor:
    """Return masks [1,count,H,W] or, where each is a slot, as many of them: stripes, so that every object has a pixel."""
    rows = torch.arange(height)[:, None].expand(height, width) % (count + 1)
    return (rows[None, None] == torch.arange(1, count + 1)[None, :, None, None]).float()


def _example_memory(written: Tensors, capacity: int, model: VOSModel) -> Tensors:
    entry = named(written, "layers/")
    by_token = isinstance(model.policy, DynamicTokens)
    memory: Tensors = {}
    for name, tensor in entry.items():
        memory[f"last/{name}"] = tensor
        if name.endswith(("/gate", "/place")):
            continue
        memory[f"bank/{name}"] = tensor.repeat(1, capacity, 1)
        if by_token:
            memory[f"valid/{name.split('/')[0]}"] = torch.ones_like(memory[f"bank/{name}"][..., :1])
    some = memory["bank/0/" + next(iter(named(entry, "0/")))]
    memory["valid"] = torch.ones_like(some[..., :1])
    memory["last_valid"] = torch.ones_like(some[:, :1, :1])
    if "token" in written:
        memory["token"] = written["token"]
    return memory


def _features(values: Tensors) -> Features:
    pyramid = named(values, "features/")
    return Features(values["image"], tuple(pyramid[str(i)] for i in range(len(pyramid))))


def _encode(model: VOSModel, dtype: torch.dtype, values: Tensors) -> Tensors:
    frame = values["frame"]
    mean, deviation = (frame.new_tensor(three).view(1, 3, 1, 1) for three in (MEAN, STD))
    features = model.encode(((frame / 255 - mean) / deviation).to(dtype))
    return {"image": features.image, **{f"features/{i}": level for i, level in enumerate(features.pyramid)}}


def _read(model: VOSModel, ranks: bool, options: Mapping[str, Any], values: Tensors) -> Tensors:
    reading = model.read(_features(values), GraphMemory(values, ranks), **options)
    carry = [] if reading.carry is None else pytree.tree_flatten_with_path(reading.carry)[0]
    found = {"logits": reading.logits.float()}
    for path, tensor in carry:
        if isinstance(tensor, Tensor):
            name = "/".join(str(key).strip("[].'\"") for key in path) or "state"
            found[name if ranks else f"carry/{name}"] = tensor
    return found


def _write(
    model: VOSModel, given: bool, structure: pytree.TreeSpec | None, values: Tensors, layers: Collection[str] | None
) -> Tensors:
    reading = None
    if structure is not None:
        carry = pytree.tree_unflatten(list(named(values, "carry/").values()), structure)
        reading = Reading(values["own"], carry)  # nothing but the carry is looked at
    entry = model.write(_features(values), ObjectMasks(values["own"], values["others"], given), reading, None)
    return _of_entry(entry, layers)


def _write_prototypes(model: SimVOS, values: Tensors, layers: Collection[str] | None) -> Tensors:
    """SimVOS with token refinement: its masks at stride 16 depend on all objects of the cohort."""
    features, index = _features(values), values["index"]
    embedded = to_tokens(features.pyramid[0])
    grid = Grid(features.image.shape[2] // 16, features.image.shape[3] // 16)
    planes = values["own"].transpose(0, 1)  # every object is a slot
    others = values["others"].expand(planes.shape[0], -1, -1, -1)
    phi = [mask.index_select(0, index) for mask in token_masks(ObjectMasks(planes, others, True), grid, 1)]
    return _of_entry(Entry((model.remember(embedded, planes.index_select(0, index), phi, grid),)), layers)


def _of_entry(entry: Entry, layers: Collection[str] | None) -> Tensors:
    """Return what a frame leaves, by name, of these layers (None: of all)."""
    found: Tensors = {}
    for kind, parts in (("layers", entry.layers), ("recent", entry.recent)):
        for i, layer in enumerate(parts):
            if layers is None or str(i) in layers:
                found |= {f"{kind}/{i}/{name}": tensor for name, tensor in layer.items()}
    return found if entry.token is None else {**found, "token": entry.token}


def _shares(model: VOSModel, features: Tensors, masks: Tensors) -> tuple[float, ...]:
    """Return the part of a frame's tokens that each layer's memory is meant for (OneVOS-D's r_l)."""
    entry = model.write(_features(features), ObjectMasks(masks["own"], masks["others"], True), None, None)
    height, width = features["image"].shape[-2:]
    return tuple(message.frame_tokens / (height // 16 * (width // 16)) for message in entry.for_banks)
