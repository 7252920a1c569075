"""Pictures of an `Inspection`: charts and token maps like Figures 3 to 5 of the OneVOS paper."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.inspection.onevos_attention import GROUPS, FrameView, Inspection, LayerView
from vosformer.inspection.weight_maps import FrameMaps
from vosformer.io import write_bytes
from vosformer.io.files import make_folder, write_json

Image = NDArray[np.uint8]

_COLORS = {"memory": (46, 139, 87), "reference": (230, 126, 34), "current": (52, 101, 164)}  # RGB
_INK, _GRID, _PAPER = (40, 40, 40), (215, 215, 215), (255, 255, 255)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_TILE_WIDTH = 200  # pixels of a small picture
_COLUMNS = 4  # layers side by side
_MOST_SOURCES = 6  # remembered frames in one picture


def draw(inspection: Inspection, folder: Path, frames: int = 3) -> list[Path]:
    """Write the pictures and the numbers of an inspection.

    - `shares.png`: share of the attention of memory, reference and current frame, layer by layer (Fig. 3c),
    - `peaks.png`: the largest weights (Fig. 3b),
    - `ratios.png`: share of the reference's tokens that each layer selected (Fig. 4b),
    - `attention_T.png`: where the target's attention goes in the reference and in the current frame T (Fig. 3a),
    - `selected_T.png`: the tokens of the reference frame that each layer selected (Fig. 4a),
    - `memory_T.png`: the tokens that each layer remembers, on the frames they come from (Fig. 5),
    - `inspection.json`: the numbers.

    Args:
        inspection: what was seen.
        folder: where to; made if it does not exist.
        frames: how many frames T, evenly spaced.

    Returns:
        The files.

    Raises:
        OutputError: a file cannot be written.
    """
    shares, peaks = inspection.shares.mean(0), inspection.peaks.mean(0)
    pictures = {
        "shares.png": _bars("share of the target's attention, by layer", shares, GROUPS),
        "peaks.png": _lines("largest attention weight, by layer", peaks, GROUPS),
        "ratios.png": _bars("share of reference tokens selected, by layer", inspection.ratios.mean(0)[:, None], ("reference",)),
    }
    chosen = np.unique(np.linspace(0, len(inspection.frames) - 1, max(frames, 1)).round().astype(int))
    for view in (inspection.frames[i] for i in chosen):
        pictures[f"attention_{view.number:05d}.png"] = _attention(view)
        pictures[f"selected_{view.number:05d}.png"] = _selected(view)
        pictures[f"memory_{view.number:05d}.png"] = _memory(view, inspection.images)
    make_folder(folder)
    written: list[Path] = []
    for name, picture in pictures.items():
        written.append(folder / name)
        encoded = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1]
        write_bytes(written[-1], encoded.tobytes())
    written.append(folder / "inspection.json")
    write_json(written[-1], inspection.summary())
    return written


def draw_maps(views: Sequence[FrameMaps], images: Sequence[Image], folder: Path, frames: int = 3) -> list[Path]:
    """Write the pictures of the maps that `inspect_maps` saw: `maps_T.png` for each chosen frame T, and `maps.npz` with all numbers.

    Args:
        views: what was seen.
        images: the frames of the clip, by number.
        folder: where to; made if it does not exist.
        frames: how many frames T, evenly spaced.

    Raises:
        OutputError: a file cannot be written.
    """
    make_folder(folder)
    written: list[Path] = []
    chosen = np.unique(np.linspace(0, len(views) - 1, max(frames, 1)).round().astype(int))
    for view in (views[i] for i in chosen):
        tiles = []
        for each in view.maps:
            tile = _heat(images[each.frame], each.weights, float(each.weights.max()))
            tiles.append(_captioned(tile, f"{each.name}, on frame {each.frame}: {each.weights.sum():.0%}"[:44]))
        looked = "" if view.point is None else f", from x = {view.point[0]}, y = {view.point[1]}"
        picture = _grid_of(tiles, _COLUMNS, f"frame {view.number}{looked}")
        written.append(folder / f"maps_{view.number:05d}.png")
        write_bytes(written[-1], cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes())
    numbers = {
        f"{view.number:05d}/{i:03d} {each.name} on {each.frame}": each.weights
        for view in views
        for i, each in enumerate(view.maps)
    }
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **numbers)  # type: ignore[arg-type]
    written.append(folder / "maps.npz")
    write_bytes(written[-1], buffer.getvalue())
    return written


def _text(image: Image, words: str, x: int, y: int, color: tuple[int, int, int] = _INK, scale: float = 0.45) -> None:
    cv2.putText(image, words, (x, y), _FONT, scale, color, 1, cv2.LINE_AA)


def _axes(title: str, layers: int, top: float, names: Sequence[str]) -> tuple[Image, NDArray[np.int64], int, int]:
    """Return an empty chart, the x of each layer, and the y of 0 and of `top`."""
    width, height, left, base, head = max(420, 60 + 44 * layers), 320, 56, 270, 50
    image = np.full((height, width, 3), _PAPER, np.uint8)
    _text(image, title, left, 18, scale=0.5)
    at = left
    for name in names:
        cv2.rectangle(image, (at, 27), (at + 10, 37), _COLORS[name], -1)
        _text(image, name, at + 15, 37, scale=0.4)
        at += 30 + 8 * len(name)
    for step in range(5):
        y = base - (base - head) * step // 4
        cv2.line(image, (left, y), (width - 10, y), _GRID, 1)
        _text(image, f"{top * step / 4:.2g}", 8, y + 4, scale=0.38)
    xs = left + 10 + (np.arange(layers) + 0.5) * (width - left - 30) / layers
    for i, x in enumerate(xs.astype(int)):
        _text(image, str(i), int(x) - 4 * len(str(i)), base + 18, scale=0.4)
    _text(image, "layer", left, base + 38, scale=0.4)
    return image, xs.astype(np.int64), base, head


def _bars(title: str, values: NDArray[np.float32], names: Sequence[str]) -> Image:
    """Stacked bars of values [L,G] in [0,1]."""
    image, xs, base, head = _axes(title, len(values), 1.0, names)
    half = max(4, int((xs[1] - xs[0]) * 0.35)) if len(xs) > 1 else 20
    for x, row in zip(xs, values, strict=True):
        bottom = float(base)
        for name, value in zip(names, row, strict=True):
            top = bottom - float(value) * (base - head)
            cv2.rectangle(image, (int(x) - half, round(top)), (int(x) + half, round(bottom)), _COLORS[name], -1)
            bottom = top
    return image


def _lines(title: str, values: NDArray[np.float32], names: Sequence[str]) -> Image:
    """Lines through values [L,G]."""
    top = max(float(values.max()) * 1.1, 1e-3)
    image, xs, base, head = _axes(title, len(values), top, names)
    for name, row in zip(names, values.T, strict=True):
        ys = base - (row / top * (base - head))
        points = np.stack([xs, ys], 1).round().astype(np.int32)
        cv2.polylines(image, [points], False, _COLORS[name], 2, cv2.LINE_AA)
        for point in points:
            cv2.circle(image, (int(point[0]), int(point[1])), 3, _COLORS[name], -1, cv2.LINE_AA)
    return image


def _tile(image: Image) -> Image:
    height = max(1, round(_TILE_WIDTH * image.shape[0] / image.shape[1]))
    return np.asarray(cv2.resize(image, (_TILE_WIDTH, height), interpolation=cv2.INTER_AREA), np.uint8)


def _heat(image: Image, weights: NDArray[np.float32], most: float) -> Image:
    """Return a picture under the colors of its tokens' weights."""
    small = _tile(image)
    level = np.sqrt(np.clip(weights / max(most, 1e-12), 0, 1))
    large = cv2.resize(level.astype(np.float32), small.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colors = cv2.applyColorMap((large * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    share = 0.25 + 0.5 * large[..., None]
    return np.asarray(small * (1 - share) + colors * share, np.uint8)


def _tokens(image: Image, chosen: NDArray[np.bool_]) -> Image:
    """Return a picture whose tokens are bright where they were chosen."""
    small = _tile(image)
    mask = cv2.resize(chosen.astype(np.uint8), small.shape[1::-1], interpolation=cv2.INTER_NEAREST)[..., None] > 0
    return np.where(mask, small, small // 5 + 20).astype(np.uint8)


def _captioned(tile: Image, words: str) -> Image:
    strip = np.full((20, tile.shape[1], 3), _PAPER, np.uint8)
    _text(strip, words, 3, 14, scale=0.4)
    return np.concatenate([strip, tile])


def _grid_of(tiles: Sequence[Image], columns: int, title: str) -> Image:
    """Pictures of one size, row by row, under a title."""
    height, width = tiles[0].shape[:2]
    blank = np.full((height, width, 3), _PAPER, np.uint8)
    filled = [*tiles, *[blank] * (-len(tiles) % columns)]
    gap = 6
    padded = [cv2.copyMakeBorder(tile, 0, gap, 0, gap, cv2.BORDER_CONSTANT, value=_PAPER) for tile in filled]
    rows = [np.concatenate(padded[i : i + columns], 1) for i in range(0, len(padded), columns)]
    body = np.concatenate(rows)
    head = np.full((26, body.shape[1], 3), _PAPER, np.uint8)
    _text(head, title, 4, 18, scale=0.5)
    return np.concatenate([head, body])


def _attention(view: FrameView) -> Image:
    tiles = []
    for i, layer in enumerate(view.layers):
        most = max(float(layer.reference.max()), float(layer.current.max()))
        pair = [_heat(view.reference_image, layer.reference, most), _heat(view.image, layer.current, most)]
        tiles.append(_captioned(np.concatenate(pair), f"layer {i}: {_share_text(layer)}"))
    title = f"attention of the objects in frame {view.number}: above frame {view.reference}, below {view.number}"
    return _grid_of(tiles, _COLUMNS, title)


def _share_text(layer: LayerView) -> str:
    return " ".join(f"{name[:3]} {share:.0%}" for name, share in zip(GROUPS, layer.shares, strict=True))


def _selected(view: FrameView) -> Image:
    tiles = [
        _captioned(_tokens(view.reference_image, layer.selected), f"layer {i}: {layer.selected.mean():.0%}")
        for i, layer in enumerate(view.layers)
    ]
    return _grid_of(tiles, _COLUMNS, f"tokens of frame {view.reference} that frame {view.number} attends to")


def _memory(view: FrameView, images: dict[int, Image]) -> Image:
    sources = sorted({int(n) for layer in view.layers for n in np.unique(layer.remembered.frame)})
    if not sources:
        return _grid_of([_tile(view.image)], 1, f"nothing is in memory when frame {view.number} is read")
    if len(sources) > _MOST_SOURCES:
        sources = [sources[0], *sources[1 - _MOST_SOURCES :]]
    shape = view.layers[0].selected.shape
    tiles = []
    for i, layer in enumerate(view.layers):
        for number in sources:
            chosen = np.zeros(shape, bool)
            chosen.flat[layer.remembered.position[layer.remembered.frame == number]] = True
            tiles.append(_captioned(_tokens(images[number], chosen), f"layer {i}, frame {number}: {int(chosen.sum())}"))
    return _grid_of(tiles, len(sources), f"tokens in memory when frame {view.number} is read")
