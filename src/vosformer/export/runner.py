"""Follow objects through a video with exported graphs: this file, NumPy and onnxruntime are all that is needed.

    session = Session("folder-of-the-export")
    for frame, labels in frames_with_a_mask_on_some:
        out = session.step(frame, labels)       # labels: integers [height,width] on a first frame, or None
        save(out.labels)

The folder holds `model.json`, the graphs and this file. A graph handles one slot of up to K objects; here are what lies between them:
how frames are brought to the network's size, which frames stay in memory, and whose masks win. It is written by
`vosformer export`; labels are those of `vosformer.Session` up to rounding.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
Values = dict[str, Array]
Size = tuple[int, int]

_LONG_PER_SHORT = 1040 / 480
_PRESENCE_CELLS = 16
_STRIP = 1 << 21  # values that are resampled at once
_SMALL_OBJECT, _GROWN = 64, 9  # pixels; see `_grow_small`


class RunnerError(ValueError):
    """A frame, mask or folder that cannot be used."""


class Graph(Protocol):
    """A graph that a runtime has loaded."""

    @property
    def shapes(self) -> Mapping[str, Sequence[int | str | None]]:
        """Name -> shape of each input; what is no number may be any."""
        ...

    def __call__(self, values: Values) -> Values:
        """Return the named outputs of the named inputs (among others that are not looked at)."""


class OnnxGraph:
    """A graph in onnxruntime."""

    def __init__(self, path: Path, threads: int | None = None, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
        self.shapes: dict[str, Sequence[int | str | None]] = {each.name: each.shape for each in self._session.get_inputs()}
        self._kinds = {each.name: _KINDS[each.type] for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]

    def __call__(self, values: Values) -> Values:
        feed = {name: np.ascontiguousarray(values[name], kind) for name, kind in self._kinds.items()}
        return dict(zip(self._outputs, self._session.run(self._outputs, feed), strict=True))


_KINDS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64, "tensor(int32)": np.int32}


# ---------------------------------------------------------------- where a frame lies in the network's input


class Placement(NamedTuple):
    """Sizes (height, width) of the frame, of it in the network's input, and of that; rows and columns of padding before it."""

    source: Size
    inner: Size
    network: Size
    top: int = 0
    left: int = 0


def place(geometry: Mapping[str, Any], source: Size, size: int | str | None, fixed: Size | None = None) -> Placement:
    """Decide where frames lie in the network's input, as `vosformer.Session` does for the same `size`.

    Args:
        geometry: of model.json.
        source: (height, width) of the frames.
        size: short side that the model sees; "own" = by the system's rule, None = the frame's own.
        fixed: the only size that the graphs take; frames are stretched to it, or fitted into it where the system pads.
    """
    height, width = source
    pads = geometry["fit"] == "pad"
    if fixed is not None and not pads:
        return Placement(source, fixed, fixed)
    factor = _factor(geometry, min(source), max(source), size)
    inner = (max(1, int(height * factor + 1e-6 * pads)), max(1, int(width * factor + 1e-6 * pads)))
    stride, extra = geometry["stride"], int(geometry["align_corners"])
    if not pads:
        fitted = [max(1, int(np.around((side - extra) / stride))) * stride + extra for side in inner]
        return Placement(source, (fitted[0], fitted[1]), (fitted[0], fitted[1]))
    network = (inner[0] + -inner[0] % stride, inner[1] + -inner[1] % stride)
    if fixed is not None and network != fixed:
        factor = min(fixed[0] / height, fixed[1] / width)
        inner = (max(1, int(height * factor + 1e-6)), max(1, int(width * factor + 1e-6)))
        network = fixed
    return Placement(source, inner, network, (network[0] - inner[0]) // 2, (network[1] - inner[1]) // 2)


def _factor(geometry: Mapping[str, Any], short: int, long: int, size: int | str | None) -> float:
    if size is None:
        return 1.0
    if isinstance(size, int):
        factor, most = size / short, _LONG_PER_SHORT * size / long
        if geometry["fit"] == "resize":
            return min(factor, most)
        return factor if factor <= 1 else max(1.0, min(factor, most))
    factor = 1.0 if geometry["short"] is None else geometry["short"] / short
    return float(factor if geometry["long"] is None else min(factor, geometry["long"] / long))


def _taps(source: int, target: int, cubic: bool, aligned: bool = False, kind: Any = np.float32) -> tuple[Array, Array]:
    """Return for each of `target` places the places in `source` that it is mixed of, and their shares: [target,4 or 2].

    PyTorch computes the places in float32 (`kind`), OpenCV in float64.
    """
    places, half = np.arange(target, dtype=kind), kind(0.5)
    at = places * kind((source - 1) / max(target - 1, 1)) if aligned else (places + half) * kind(source / target) - half
    if not cubic:
        at = np.maximum(at, 0)
    low = np.floor(at).astype(np.int64)
    t = at - low
    if cubic:
        a, away = -0.75, np.stack([t + 1, t, 1 - t, 2 - t], 1)
        shares = np.where(
            away <= 1, ((a + 2) * away - (a + 3)) * away**2 + 1, ((a * away - 5 * a) * away + 8 * a) * away - 4 * a
        )
        taken = low[:, None] + np.arange(-1, 3)
    else:
        shares, taken = np.stack([1 - t, t], 1), low[:, None] + np.arange(2)
    return taken.clip(0, source - 1), shares.astype(np.float32)


def _matrix(source: int, target: int, aligned: bool) -> Array:
    """Return the bilinear resampling of `source` places to `target` ones as float32 [target,source]."""
    taken, shares = _taps(source, target, False, aligned)
    matrix = np.zeros((target, source), np.float32)
    np.add.at(matrix, (np.arange(target)[:, None], taken), shares)
    return matrix


def network_input(frame: Array, placement: Placement, geometry: Mapping[str, Any]) -> Array:
    """Turn uint8 RGB [height,width,3] into the float32 [1,3,H,W] that `encode` takes; padding is the mean color, which becomes 0."""
    values = frame.astype(np.float32)
    if placement.inner != placement.source:
        cubic = geometry["resample"] != "bilinear"
        for axis in (0, 1):
            if placement.source[axis] == placement.inner[axis]:
                continue
            kind = np.float64 if geometry["resample"] == "opencv-cubic" else np.float32
            taken, shares = _taps(placement.source[axis], placement.inner[axis], cubic, kind=kind)
            mixed = np.zeros((*values.shape[:axis], len(taken), *values.shape[axis + 1 :]), np.float32)
            for tap in range(taken.shape[1]):
                mixed += values.take(taken[:, tap], axis) * shares[:, tap].reshape((-1,) + (1,) * (2 - axis))
            values = mixed
    image = np.empty((1, 3, *placement.network), np.float32)
    image[:] = np.asarray(geometry["mean"], np.float32)[:, None, None] * np.float32(255)
    image[0, :, _inside(placement)[0], _inside(placement)[1]] = values.transpose(2, 0, 1)
    return image


def _inside(placement: Placement) -> tuple[slice, slice]:
    (height, width), top, left = placement.inner, placement.top, placement.left
    return slice(top, top + height), slice(left, left + width)


def _at_network(labels: Array, placement: Placement) -> Array:
    """Bring labels [height,width] to the network's size by nearest neighbor, 0 around."""
    rows, columns = (
        np.minimum(np.floor(np.arange(t, dtype=np.float32) * np.float32(s / t)).astype(np.int64), s - 1)
        for s, t in zip(placement.source, placement.inner, strict=True)
    )
    found = np.zeros(placement.network, labels.dtype)
    found[_inside(placement)] = labels[rows][:, columns]
    return found


def _grow_small(labels: Array) -> Array:
    """Grow every object of less than 64 pixels by a box of about 9 x 9, as OneVOS does on a first frame."""
    out = labels.copy()
    for i in sorted(np.unique(labels[labels != 0]).tolist(), reverse=True):
        rows, columns = np.nonzero(labels == i)
        if len(rows) >= _SMALL_OBJECT:
            continue
        tall, wide = (max(int(at.max() - at.min()), 1) for at in (rows, columns))
        longer = (_GROWN + 2 * int((max(tall, wide) - min(tall, wide)) / min(tall, wide))) // 2
        down, right = (longer, _GROWN // 2) if tall > wide else (_GROWN // 2, longer)
        for y, x in zip(rows.tolist(), columns.tolist(), strict=True):
            out[max(y - down, 0) : y + down + 1, max(x - right, 0) : x + right + 1] = i
    return out


# ---------------------------------------------------------------- which frames stay in memory


class Frame(NamedTuple):
    """A remembered frame: its number since the cohort began, whether masks were given on it, and for an object of the cohort."""

    number: int
    pinned: bool
    own: bool = True


class Plan(NamedTuple):
    """Positions in the bank to drop, what to append ("new", "last" or None), and whether the new frame becomes the last one."""

    drop: tuple[int, ...] = ()
    bank: str | None = None
    replace_last: bool = True


def plan(policy: Mapping[str, Any], bank: Sequence[Frame], last: Frame | None, new: Frame) -> Plan:
    """Decide what a memory keeps, as the policy of that name in `vosformer.policy` does."""
    kind, capacity = policy["kind"], policy["capacity"]
    if kind in ("GivenOnly", "EveryK"):
        latest = max((frame.number for frame in bank), default=None)
        enters = new.pinned or (kind == "EveryK" and (latest is None or new.number - latest >= policy["gap"]))
        return Plan(_oldest(bank, capacity), "new") if enters else Plan()
    if kind == "FirstAndPrevious":
        if not bank:
            return Plan((), "new", False)
        return Plan() if not (new.pinned and new.own) or capacity == 1 else Plan(_first_in(bank, capacity), "new")
    if kind == "Queue":
        if bank and (capacity == 1 or (not new.pinned and new.number - bank[-1].number < policy["gap"])):
            return Plan()
        return Plan(_first_in(bank, capacity), "new", False)
    if last is None or not (not bank or last.pinned or last.number % policy["gap"] == 0):
        return Plan()
    if kind == "DynamicTokens":
        return Plan(_first_in(bank, capacity + 1), "last")
    dropped: set[int] = set()
    if len(bank) >= policy["cap"]:
        given = sorted((i for i, frame in enumerate(bank) if frame.pinned and frame.number > 0), reverse=True)
        order = given + [i for i in range(len(bank)) if i not in given]
        dropped = set(order[max(len(given), 1) : max(len(bank) - policy["cap"] + 1, 0)])
    left = [i for i in range(len(bank)) if i not in dropped]
    dropped |= {left[i] for i in _oldest([bank[i] for i in left], capacity)}
    return Plan(tuple(sorted(dropped)), "last")


def _oldest(bank: Sequence[Frame], capacity: int) -> tuple[int, ...]:
    predicted = [i for i, frame in enumerate(bank) if not frame.pinned]
    given = [i for i, frame in enumerate(bank) if frame.pinned]
    return tuple(sorted((predicted + given[1:] + given[:1])[: max(len(bank) + 1 - capacity, 0)]))


def _first_in(bank: Sequence[Frame], capacity: int) -> tuple[int, ...]:
    return tuple(range(1, len(bank)))[: max(len(bank) + 1 - capacity, 0)]


class FrameBank:
    """Whole frames of one slot, in arrays of fixed capacity; the order does not matter, so a hole is filled with the last one."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._where: list[int] = []  # of each frame in order of arrival: its block
        self._store: Values = {}
        self._length: dict[str, int] = {}

    def append(self, layers: Values) -> None:
        """Remember one frame more: "0/k" -> [1,n,C]."""
        block = len(self._where)
        for name, tensor in layers.items():
            length = tensor.shape[1]
            if name not in self._store:
                self._length[name] = length
                self._store[name] = np.zeros((1, self._capacity * length, tensor.shape[2]), tensor.dtype)
            self._store[name][:, block * length : (block + 1) * length] = tensor
        self._where.append(block)

    def drop(self, position: int) -> None:
        """Forget a frame."""
        hole, end = self._where.pop(position), len(self._where)
        if hole == end:
            return
        for name, array in self._store.items():
            n = self._length[name]
            array[:, hole * n : (hole + 1) * n] = array[:, end * n : (end + 1) * n]
        self._where[self._where.index(end)] = hole

    def feed(self, shapes: Mapping[str, Sequence[Any]], least: int) -> Values:
        """Return the inputs of `read`: as much of the arrays as its shapes want, and which places hold a token."""
        values: Values = {}
        for name, array in self._store.items():
            if f"bank/{name}" not in shapes:
                continue
            fixed = shapes[f"bank/{name}"][1]
            held = len(self._where) * self._length[name]
            count = fixed if isinstance(fixed, int) else max(held, min(least, array.shape[1]))
            values[f"bank/{name}"] = array[:, :count]
            values["valid"] = (np.arange(count) < held).astype(np.float32)[None, :, None]
        return values


class TokenBank:
    """Tokens of one slot (OneVOS-D): of each layer those of the first frame, of the newest given one, and others."""

    def __init__(self, quota: Sequence[float], policy: Mapping[str, Any]) -> None:
        self._quota, self._policy = quota, policy
        self._layers: list[Values] = [{} for _ in quota]
        self._sections = [[0, 0, 0] for _ in quota]

    def _limit(self, layer: int, tokens: int) -> int:
        most: float = self._quota[layer] * tokens * self._policy["capacity"]
        return round(most)  # to even, as vosformer does

    def full(self, last: Values, tokens: int) -> bool:
        """Tell whether any layer will have to choose when the last frame enters."""
        taken = [int((last[f"{i}/gate"] > 0.5).sum()) for i in range(len(self._quota))]
        return any(sum(s) + n > self._limit(i, tokens) for i, (s, n) in enumerate(zip(self._sections, taken, strict=True)))

    def admit(self, last: Values, pinned: bool, received: Values, tokens: int) -> None:
        """Take in the selected tokens of a frame: "0/k" -> [1,N,C]; `received` is what `rank` said, if it was asked."""
        for i, held in enumerate(self._layers):
            chosen = last[f"{i}/gate"][0, :, 0] > 0.5
            fresh = {
                n.split("/")[1]: t[:, chosen] for n, t in last.items() if n.startswith(f"{i}/") and not n.endswith("/gate")
            }
            score = received.get(f"{i}/reference_usage")
            old = received.get(f"{i}/bank_usage")
            self._admit(i, held, fresh, pinned, None if score is None else score[0, chosen], old, self._limit(i, tokens))

    def _admit(
        self, i: int, held: Values, fresh: Values, pinned: bool, score: Array | None, old: Array | None, limit: int
    ) -> None:
        begins = not held
        first, given, others = self._sections[i]
        if not self._policy["keep_first"]:
            first, given, others, begins, pinned = 0, 0, first + given + others, False, False
        if pinned:
            others, given = others + given, 0
        fresh = _best(fresh, limit - first - given, score)
        count = next(iter(fresh.values())).shape[1]
        left = limit - first - given - count
        kept = {name: array[:, : first + given] for name, array in held.items()}
        rest = {name: array[:, first + given : first + given + others] for name, array in held.items()}
        if others > left:
            keep = min(self._policy["keep"], left)
            rest = _best(rest, keep, None if old is None else old[0, first + given : first + given + others])
            others = min(others, max(keep, 0))
        order = (kept, fresh, rest) if pinned else (kept, rest, fresh)
        self._layers[i] = {n: np.concatenate([part[n] for part in order if part], 1) for n in fresh}
        self._sections[i] = [count, 0, 0] if begins else [first, count, others] if pinned else [first, given, others + count]

    def feed(self, shapes: Mapping[str, Sequence[Any]], least: int) -> Values:
        """Return the inputs of `read`: the tokens, filled up with zeros, and which places hold one."""
        values: Values = {}
        for i, layer in enumerate(self._layers):
            for name, array in layer.items():
                fixed = shapes[f"bank/{i}/{name}"][1] if f"bank/{i}/{name}" in shapes else None
                count = fixed if isinstance(fixed, int) else max(array.shape[1], least)
                values[f"bank/{i}/{name}"] = np.pad(array, ((0, 0), (0, count - array.shape[1]), (0, 0)))
                values[f"valid/{i}"] = (np.arange(count) < array.shape[1]).astype(np.float32)[None, :, None]
        return values


def _best(layer: Values, count: int, score: Array | None) -> Values:
    """Return the `count` tokens with the highest scores, in their order; without scores the last ones."""
    length = next(iter(layer.values())).shape[1]
    if length <= count:
        return layer
    count = max(count, 0)
    places = np.arange(length - count, length) if score is None else np.sort(np.argsort(-score, kind="stable")[:count])
    return {name: array[:, places] for name, array in layer.items()}


@dataclass
class Slot:
    """Up to K objects that share a memory: the ids in its places (None = left, not to be used again) and what it remembers."""

    ids: list[int | None]
    bank: FrameBank | TokenBank
    last: Values = field(default_factory=dict)
    layers: tuple[str, ...] = ()  # of `last`: what a bank may keep
    token: Values = field(default_factory=dict)


@dataclass
class Cohort:
    """Slots that share the frames of one memory."""

    began: int
    slots: list[Slot]
    frames: list[Frame] = field(default_factory=list)
    last_frame: Frame | None = None

    @property
    def ids(self) -> list[int]:
        return [i for slot in self.slots for i in slot.ids if i is not None]


@dataclass
class State:
    """All that a session knows after some frames."""

    frames: int = 0
    source: Size | None = None
    cohorts: list[Cohort] = field(default_factory=list)


# ---------------------------------------------------------------- what is said about a frame


@dataclass(frozen=True)
class Prediction:
    """The masks of one frame.

    Attributes:
        labels: int32 [height,width], the id at each pixel, 0 = background.
        ids: the ids that are tracked, ascending.
        given: ids whose mask came from the user.
    """

    labels: Array
    ids: tuple[int, ...]
    given: frozenset[int] = frozenset()
    _answer: _Answer | None = field(default=None, repr=False)

    def score(self, i: int) -> float:
        """Return how surely an object is in the frame, in [0,1]; 1 or 0 for a given mask."""
        return self._answer.scores[i] if self._answer is not None and i not in self.given else float((self.labels == i).any())

    def probability(self, i: int) -> Array:
        """Return float32 [height,width], the probability that a pixel belongs to the object; 1 and 0 for a given mask."""
        if i in self.given or self._answer is None:
            return np.asarray(self.labels == i, np.float32)
        channel = 1 + self._answer.ids.index(i)
        return np.concatenate([_softmax(values)[channel] for values in self._answer.strips()])


@dataclass(frozen=True)
class _Answer:
    """Maps [C,h,w] that are resampled to the source's size together, and what makes merged logits of them."""

    maps: list[Array]
    finish: Callable[[list[Array]], Array]
    ids: list[int | None]
    source: Size
    aligned: bool
    scores: dict[int, float]

    def strips(self) -> Iterator[Array]:
        """Yield merged logits [1+n,rows,width] from the top."""
        down, right = (_matrix(self.maps[0].shape[a + 1], self.source[a], self.aligned) for a in (0, 1))
        step = max(1, _STRIP // (sum(len(m) for m in self.maps) * self.source[1]))
        for top in range(0, self.source[0], step):
            yield self.finish([down[top : top + step] @ m @ right.T for m in self.maps])

    def labels(self) -> Array:
        """Return int32 [height,width], the most probable id of each pixel."""
        ids = np.array([0, *(i or 0 for i in self.ids)], np.int32)
        return np.concatenate([ids[values.argmax(0)] for values in self.strips()])


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(0))
    return np.asarray(powers / powers.sum(0))


class Session:
    """Follows objects through a stream of frames, one frame at a time, with memory that stays flat on any length."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        size: int | str | None = 480,
        threads: int | None = None,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        load: Callable[[Path], Graph] | None = None,
    ) -> None:
        """Load an export.

        Args:
            folder: with model.json and the graphs.
            size: short side in pixels that the model sees, "own" = by the rule of the system's released code, None = the frames' own.
                Graphs of a fixed size take that size whatever this says; only padding systems look at it there.
            threads: of onnxruntime; None = as it likes.
            providers: of onnxruntime.
            load: another runtime: from the path of a graph to a `Graph`.

        Raises:
            RunnerError: the folder holds no export.
        """
        where = Path(folder)
        try:
            self._about: dict[str, Any] = json.loads((where / "model.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunnerError(f"{where} holds no export of vosformer: model.json cannot be read ({error})") from None
        if self._about.get("format") != 1:
            raise RunnerError(f"{where / 'model.json'} is of format {self._about.get('format')}, expected 1")
        make: Callable[[Path], Graph] = load or (lambda path: OnnxGraph(path, threads, providers))
        self._graphs: dict[str, Graph] = {name: make(where / each["file"]) for name, each in self._about["graphs"].items()}
        self._fixed: Size | None = tuple(self._about["size"]) if self._about["size"] else None
        self._size = size
        self._state = State()

    @property
    def about(self) -> Mapping[str, Any]:
        """What model.json says: variant, hash of the weights, geometry, policy and more."""
        return self._about

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids that are tracked, ascending."""
        return tuple(sorted(i for cohort in self._state.cohorts for i in cohort.ids))

    def step(self, frame: Array, labels: Any = None, *, ids: Sequence[int] | None = None) -> Prediction:
        """Return the masks of the next frame.

        Args:
            frame: uint8 RGB [height,width,3]; every frame of a session has the same size.
            labels: integers [height,width], 0 = nothing said: a first mask, new objects, or corrections, on any frame. They win over
                the prediction, and stay in memory.
            ids: the objects that `labels` speaks for; default: those that occur in it.

        Raises:
            RunnerError: the frame or labels cannot be used; the session is left as it was.
        """
        state, about = self._state, self._about
        if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or 0 in frame.shape:
            raise RunnerError(
                f"a frame of shape {frame.shape} and {frame.dtype} was given, expected uint8 [height,width,3] in RGB"
            )
        source: Size = frame.shape[:2]
        if state.source not in (None, source):
            raise RunnerError(f"a frame of {source} pixels came after frames of {state.source}; call reset() for another video")
        given, spoken = (None, ()) if labels is None else self._checked(labels, source, ids)
        if given is None and not self.ids and state.frames == 0:
            raise RunnerError("the first frame needs labels: at least one object must be given before anything can be tracked")
        at = place(about["geometry"], source, self._size, self._fixed)
        features = self._graphs["encode"]({"frame": network_input(frame, at, about["geometry"])})
        read = [[self._read(features, cohort, slot) for slot in cohort.slots] for cohort in state.cohorts]
        answer, soft = self._answer(read, at) if read else (None, {})
        found = np.zeros(source, np.int32) if answer is None else answer.labels()
        if given is not None:
            found[np.isin(found, spoken)] = 0
            found = np.where(given != 0, given, found)
        self._remember(features, read, found, soft, given, spoken, at)
        state.frames, state.source = state.frames + 1, source
        return Prediction(found, self.ids, frozenset(spoken), answer)

    def remove(self, i: int) -> None:
        """Stop tracking an object.

        Raises:
            RunnerError: no object of that id is tracked.
        """
        if i not in self.ids:
            raise RunnerError(f"there is no object with id {i} to remove; tracked are {list(self.ids)}")
        for cohort in list(self._state.cohorts):
            for slot in cohort.slots:
                slot.ids[:] = [None if each == i else each for each in slot.ids]
            cohort.slots = [slot for slot in cohort.slots if any(each is not None for each in slot.ids)]
            if not cohort.slots:
                self._state.cohorts.remove(cohort)

    def reset(self) -> None:
        """Forget everything; the next frame may have another size."""
        self._state = State()

    @property
    def state(self) -> State:
        """A copy of all that the session knows; set it to go back."""
        return copy.deepcopy(self._state)

    @state.setter
    def state(self, state: State) -> None:
        self._state = copy.deepcopy(state)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file (.npz without pickles), whole or not at all."""
        arrays: Values = {}
        state = _packed(self._state, arrays)
        arrays["about"] = np.array(json.dumps({"hash": self._about["hash"], "size": str(self._size), "state": state}))
        temporary = Path(f"{os.fspath(path)}.part")
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        temporary.replace(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Go back to a state that `save` wrote, in a session of the same export.

        Raises:
            RunnerError: the file is missing, broken, or of another model or size.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                about, arrays = json.loads(str(file["about"])), dict(file)
            state = _unpacked(about["state"], arrays)
        except (OSError, ValueError, KeyError) as error:
            raise RunnerError(f"{path} holds no state of a session: {error}") from None
        if about["hash"] != self._about["hash"] or about["size"] != str(self._size):
            raise RunnerError(f"{path} is of a session of another model or size: {about['hash']}, {about['size']}")
        state.source = state.source and tuple(state.source)
        self._state = state

    def _checked(self, labels: Any, source: Size, ids: Sequence[int] | None) -> tuple[Array, tuple[int, ...]]:
        array = np.asarray(labels)
        if array.shape != source or array.dtype.kind not in "iub":
            raise RunnerError(f"labels of shape {array.shape} and {array.dtype} were given, expected integers {source}")
        present = tuple(int(i) for i in np.unique(array) if i != 0)
        spoken = present if ids is None else tuple(dict.fromkeys(index(i) for i in ids))
        if not set(present) <= set(spoken):
            raise RunnerError(f"labels hold the ids {list(present)}, which are not all among ids={list(spoken)}")
        unseen = [i for i in spoken if i not in present and i not in self.ids]
        if unseen or 0 in spoken or not spoken:
            raise RunnerError(f"ids {unseen or list(spoken) or [0]} are neither tracked nor have a pixel in labels")
        if min(spoken) < -(1 << 31) or max(spoken) >= 1 << 31:
            raise RunnerError("ids must fit 32 bits")
        new = [i for i in spoken if i not in self.ids]
        if self._about["cohort"] and len(new) > self._about["cohort"]:
            raise RunnerError(
                f"{len(new)} objects begin on one frame, but the graphs are for {self._about['cohort']}: export with --objects"
            )
        return array.astype(np.int32), spoken

    def _read(self, features: Values, cohort: Cohort, slot: Slot) -> Values:
        name, last = "read", cohort.last_frame
        if isinstance(slot.bank, TokenBank) and last is not None:
            enters = plan(self._about["policy"], cohort.frames, last, Frame(last.number + 1, False)).bank == "last"
            if enters and slot.bank.full(slot.last, self._tokens(features)):
                name = "rank"
        graph = self._graphs[name]
        values = slot.bank.feed(graph.shapes, self._about["least_tokens"]) | slot.token
        in_bank = last is None or last in cohort.frames
        values |= {f"last/{key}": array for key, array in slot.last.items()}
        values["last_valid"] = np.full((1, 1, 1), 0 if in_bank else 1, np.float32)
        return graph({**features, **self._empty(features, graph, values), **values})

    def _tokens(self, features: Values) -> int:
        """Return the tokens of a frame at stride 16."""
        height, width = features["image"].shape[2:]
        return int((height // 16 + height % 2) * (width // 16 + width % 2))

    def _empty(self, features: Values, graph: Graph, known: Values) -> Values:
        """Return zeros for the parts of a memory that are empty as yet."""
        values: Values = {"valid": np.zeros((1, 1, 1), np.float32)}
        for name, channels in self._about["memory"].items():
            shape = graph.shapes.get(name, ())
            if len(shape) == 3 and name not in known:
                tokens = shape[1] if isinstance(shape[1], int) else max(1, self._about["least_tokens"])
                if name.startswith("last/") and not isinstance(shape[1], int):
                    tokens = self._about["tokens_per_frame"] or self._tokens(features)
                values[name] = np.zeros((1, tokens, channels), np.float32)
                if name.startswith("bank/"):
                    values["valid"] = values[f"valid/{name.split('/')[1]}"] = np.zeros((1, tokens, 1), np.float32)
        return values

    def _answer(self, read: list[list[Values]], at: Placement) -> tuple[_Answer, dict[int, Array]]:
        """Return the answer at the network's scale, and where that is fed back id -> probabilities [H,W] at its size."""
        slots: list[Array] = []
        ids: list[int | None] = []
        for cohort, readings in zip(self._state.cohorts, read, strict=True):
            for slot, reading in zip(cohort.slots, readings, strict=True):
                places = [*slot.ids, *[None] * (self._about["slot_size"] - len(slot.ids))]
                live = [k for k, i in enumerate(places) if i is not None or self._about["merging"]["free_channels_compete"]]
                slots.append(reading["logits"][0, [0, *(k + 1 for k in live)]])
                ids += [places[k] for k in live]
        probabilities = _softmax(self._merge(slots))[1:].reshape(len(ids), -1)
        cells = min(_PRESENCE_CELLS, probabilities.shape[1])
        means = np.partition(probabilities, probabilities.shape[1] - cells, 1)[:, probabilities.shape[1] - cells :].mean(1)
        scores = {i: self._chance(float(mean)) for i, mean in zip(ids, means, strict=True) if i is not None}
        aligned = self._about["geometry"]["align_corners"]
        if self._about["feedback"] == "hard":
            return _Answer(slots, self._merge, ids, at.source, aligned, scores), {}
        down, right = (_matrix(slots[0].shape[a + 1], at.network[a], aligned) for a in (0, 1))
        soft = _softmax(self._merge([down @ slot @ right.T for slot in slots]))
        inner = soft[(slice(None), *_inside(at))]
        answer = _Answer([inner], lambda maps: np.log(maps[0].clip(1e-12, 1)), ids, at.source, False, scores)
        return answer, {i: soft[c + 1] for c, i in enumerate(ids) if i is not None}

    def _chance(self, mean: float) -> float:
        """Return the chance that an object is in the frame, out of the mean of its largest probabilities."""
        scale, bias = self._about["presence"]
        if (scale, bias) == (1.0, 0.0):
            return mean
        mean = min(max(mean, 1e-6), 1 - 1e-6)
        return float(1 / (1 + np.exp(-(scale * np.log(mean / (1 - mean)) + bias))))

    def _merge(self, slots: list[Array]) -> Array:
        """Join the logits [1+k,...] of slots that know nothing of each other."""
        merging = self._about["merging"]
        if len(slots) == 1 and not merging["lone_slot"]:
            return slots[0]
        probabilities = [_softmax(logits) for logits in slots]
        background = np.prod([each[:1] for each in probabilities], 0)
        joined = np.concatenate([background, *(each[1:] for each in probabilities)]).clip(
            merging["clamp"], 1 - merging["clamp"]
        )
        return np.asarray(np.log(joined / (1 - joined)))

    def _remember(
        self,
        features: Values,
        read: list[list[Values]],
        labels: Array,
        soft: dict[int, Array],
        given: Array | None,
        spoken: tuple[int, ...],
        at: Placement,
    ) -> None:
        """Write the frame, with its masks, to every cohort's memory; open places for ids that are new."""
        about, state = self._about, self._state
        self._admit([i for i in spoken if i not in self.ids])
        small = _at_network(labels, at)
        if state.frames == 0 and about["grows_small_objects"]:
            small = _grow_small(small)
        order = [i for cohort in state.cohorts for i in cohort.ids]
        if about["feedback"] == "hard":
            masks = {i: (small == i).astype(np.float32) for i in order}
            total = (small != 0).astype(np.float32)
        else:
            masks = self._soft_masks(soft, given, spoken, order, at)
            total = np.sum([masks[i] for i in order], 0)
        for c, cohort in enumerate(state.cohorts):
            own = any(i in spoken for i in cohort.ids)
            new = Frame(state.frames - cohort.began, given is not None, own)
            decided = plan(about["policy"], cohort.frames, cohort.last_frame, new)
            for s, slot in enumerate(cohort.slots):
                reading = read[c][s] if c < len(read) else None
                written = self._write(features, reading, cohort, s, masks, total, given is not None)
                self._keep(slot, decided, written, reading or {}, cohort.last_frame, self._tokens(features))
            for position in sorted(decided.drop, reverse=True):
                del cohort.frames[position]
            if decided.bank == "new":
                cohort.frames.append(new)
            elif decided.bank == "last" and cohort.last_frame is not None:
                cohort.frames.append(cohort.last_frame)
            if decided.replace_last:
                cohort.last_frame = new

    def _admit(self, waiting: list[int]) -> None:
        """Give each new id a place: a free one where the system shares its memory, else in a new cohort."""
        size, policy = self._about["slot_size"], self._about["policy"]
        if self._about["shares_memory"]:
            for slot in (slot for cohort in self._state.cohorts for slot in cohort.slots):
                while waiting and len(slot.ids) < size:
                    slot.ids.append(waiting.pop(0))
        slots = []
        for start in range(0, len(waiting), size):
            by_token = policy["kind"] == "DynamicTokens"
            bank = TokenBank(self._about["quota"], policy) if by_token else FrameBank(policy["capacity"])
            slots.append(Slot([*waiting[start : start + size]], bank))
        if slots:
            self._state.cohorts.append(Cohort(self._state.frames, slots))

    def _soft_masks(
        self, soft: dict[int, Array], given: Array | None, spoken: tuple[int, ...], order: list[int], at: Placement
    ) -> dict[int, Array]:
        """Return id -> probabilities [H,W] at the network's size, the user's masks put in and aggregated again."""
        if given is None:
            return soft
        inside = _at_network(given, at)
        masks = {i: (inside == i).astype(np.float32) if i in spoken else soft[i] * (inside == 0) for i in order}
        slots = [np.log(np.stack([1 - mask, mask]).clip(1e-30, 1)) for mask in masks.values()]
        return dict(zip(masks, _softmax(self._merge(slots))[1:], strict=True))

    def _write(
        self,
        features: Values,
        reading: Values | None,
        cohort: Cohort,
        s: int,
        masks: dict[int, Array],
        total: Array,
        given: bool,
    ) -> Values:
        about = self._about
        slots = [slot.ids for slot in cohort.slots] if about["cohort"] else [cohort.slots[s].ids]
        own = np.zeros((1, about["cohort"] or about["slot_size"], *total.shape), np.float32)
        places = [i for ids in slots for i in ids]
        for channel, i in enumerate(places):
            if i is not None:
                own[0, channel] = masks[i]
        rest = total - (own[0, 0] if about["cohort"] else own[0, : len(places)].sum(0))
        begin = (about["begins"] == "given" and given) or (about["begins"] == "unread" and reading is None)
        graph = self._graphs["begin" if begin else "write"]
        carry = reading or {}
        return graph({**features, **carry, "own": own, "others": rest[None, None], "index": np.array([s], np.int64)})

    def _keep(self, slot: Slot, decided: Plan, written: Values, reading: Values, last_frame: Frame | None, tokens: int) -> None:
        """Do in a slot's memory what was decided."""
        layers = {name.removeprefix("layers/"): array for name, array in written.items() if name.startswith("layers/")}
        recent = {name.removeprefix("recent/"): array for name, array in written.items() if name.startswith("recent/")}
        if isinstance(slot.bank, TokenBank):
            if decided.bank == "last" and last_frame is not None:
                slot.bank.admit({name: slot.last[name] for name in slot.layers}, last_frame.pinned, reading, tokens)
        else:
            for position in sorted(decided.drop, reverse=True):
                slot.bank.drop(position)
            if decided.bank == "new":
                slot.bank.append(layers)
            elif decided.bank == "last" and slot.last:
                slot.bank.append({name: slot.last[name] for name in slot.layers})
        if decided.replace_last:
            slot.last, slot.layers = {**layers, **recent}, tuple(layers)
        if "token" in written:
            slot.token = {"token": written["token"]}


def _packed(value: Any, arrays: Values) -> Any:
    """Return a state as JSON, its arrays put into `arrays` under names that the JSON tells."""
    if isinstance(value, np.ndarray):
        arrays[f"array{len(arrays)}"] = value
        return {"array": f"array{len(arrays) - 1}"}
    if isinstance(value, Frame):
        return {"frame": list(value)}
    if isinstance(value, list | tuple):
        return [_packed(each, arrays) for each in value]
    if isinstance(value, dict):
        return {"dict": {name: _packed(each, arrays) for name, each in value.items()}}
    if type(value).__name__ in _CLASSES:
        return {"class": type(value).__name__, "fields": {n: _packed(each, arrays) for n, each in vars(value).items()}}
    return value


def _unpacked(value: Any, arrays: Values) -> Any:
    if isinstance(value, list):
        return [_unpacked(each, arrays) for each in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        return arrays[value["array"]]
    if "frame" in value:
        return Frame(*value["frame"])
    if "dict" in value:
        return {name: _unpacked(each, arrays) for name, each in value["dict"].items()}
    made = object.__new__(_CLASSES[value["class"]])
    vars(made).update({name: _unpacked(each, arrays) for name, each in value["fields"].items()})
    return made


_CLASSES: dict[str, Any] = {each.__name__: each for each in (State, Cohort, Slot, FrameBank, TokenBank)}
