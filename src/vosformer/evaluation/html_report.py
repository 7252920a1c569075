"""A report as one self-contained page: the table, curves of each object over time, and the worst frames as pictures."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vosformer.evaluation.layout import MaskFolders, find_masks, mask_files
from vosformer.evaluation.masks import read_labels
from vosformer.evaluation.metrics import Values
from vosformer.evaluation.report import ObjectScore, Report
from vosformer.evaluation.rules import named_rules
from vosformer.io.files import write_bytes
from vosformer.io.palette import VOID

_WORST = 12  # frames that are shown
_PER_OBJECT = 2  # of these, of one object
_WIDTH, _HEIGHT = 420, 90  # of a curve
_PICTURE = 320  # most pixels of a picture's width

_STYLE = """
body{font:14px/1.45 system-ui,sans-serif;margin:2em auto;max-width:1080px;padding:0 1em;color:#1b1b1f;background:#fff}
h1{font-size:1.4em}h2{font-size:1.15em;margin-top:2em}h3{font-size:1em;margin:1.2em 0 .2em}
table{border-collapse:collapse}td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #e4e4ea}
td:first-child,th:first-child{text-align:left}.all{font-weight:600}
.curves{display:flex;flex-wrap:wrap;gap:1em}.curves figure,.worst figure{margin:0}figcaption{color:#55555f;font-size:.9em}
svg{background:#fafafc;border:1px solid #e4e4ea}.worst{display:grid;gap:1.2em}.worst img{margin-right:.4em;border:1px solid #e4e4ea}
.j{stroke:#1f6feb}.f{stroke:#d9730d}polyline{fill:none;stroke-width:1.5}.other{stroke-dasharray:4 3;opacity:.6}
.key b{padding:0 .3em}.note{color:#8a5a00}.better{color:#137333}.worse{color:#b3261e}
@media(prefers-color-scheme:dark){body{background:#17171b;color:#e8e8ee}svg{background:#1f1f25;border-color:#3a3a44}
td,th{border-color:#3a3a44}figcaption{color:#a0a0ac}.note{color:#e0b050}.better{color:#7ad08a}.worse{color:#f2938c}}
"""


def write_html(path: str | Path, report: Report, other: Report | None = None) -> None:
    """Write a page that needs nothing but itself.

    Args:
        path: of the page.
        report: the scores to show; their masks are read again for the pictures.
        other: scores of another run over the same truth, to compare with.

    Raises:
        OutputError: it could not be written.
        DataError: a mask cannot be read.
    """
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(report.results)}</title><style>{_STYLE}</style>",
        f"<h1>{escape(report.results)}</h1><p>against {escape(report.truth)} by the {escape(report.rules)} rules"
        + (f", compared with {escape(other.results)}" if other is not None else "")
        + f". Main number: <b>{100 * report.score:.2f}</b>"
        + ("" if other is None else f" {_difference(report.score, other.score)}")
        + "</p>",
        *(f'<p class="note">{escape(text)}</p>' for text in report.warnings),
        "<h2>Scores</h2>",
        _table(report, other),
        _official(report, other),
        "<h2>Worst frames</h2><p>Truth, result, and where they differ: white in both, <b>red</b> missed, <b>blue</b> too much.</p>",
        f'<div class="worst">{"".join(_worst(report))}</div>',
        f'<h2>Over time</h2><p class="key"><b style="color:#1f6feb">{report.measures[0]}</b> and '
        f'<b style="color:#d9730d">{report.measures[1]}</b> by frame, 0 to 1'
        + (f"; dashed: {escape(other.results)}" if other is not None else "")
        + "</p>",
        *_curves(report, other),
        "</html>\n",
    ]
    write_bytes(Path(path), "\n".join(parts).encode())


def _table(report: Report, other: Report | None) -> str:
    known = {} if other is None else {(s.name, o.id): o.scores.jf for s in other.sequences for o in s.objects}
    head = ["object", "frames", *report.columns, *(["difference"] if other is not None else [])]
    rows = [_cells("th", head)]
    for sequence in report.sequences:
        for one in sequence.objects:
            values = [f"{100 * value:.1f}" for value in one.scores.row()]
            name = escape(one.name or f"{sequence.name} {one.id}")
            more = [_difference(one.scores.jf, known.get((sequence.name, one.id)))] if other is not None else []
            rows.append(_cells("td", [name, str(len(one.frames)), *values, *more]))
    for name, group in {**report.groups, "all": report.overall}.items():
        before = None if other is None else (other.overall if name == "all" else other.groups.get(name))
        more = [] if other is None else [_difference(group.jf, None if before is None else before.jf)]
        rows.append(_cells("td", [name, "", *(f"{100 * value:.1f}" for value in group.row()), *more], "all"))
    return f"<table>{''.join(rows)}</table>"


def _official(report: Report, other: Report | None) -> str:
    """Return the numbers of the benchmark's own scorer, in its units."""
    if report.official is None or not report.official.overall:
        return ""
    before = other.official.overall if other is not None and other.official is not None else {}
    rows = [_cells("th", ["as the benchmark's own code gives it", "", *(["compared"] if before else [])])]
    for name, value in report.official.overall.items():
        rows.append(_cells("td", [escape(name), f"{value:.4f}", *([f"{before[name]:.4f}"] if name in before else [])]))
    return f"<p></p><table>{''.join(rows)}</table>"


def _cells(kind: str, values: Sequence[str], style: str = "") -> str:
    return f'<tr class="{style}">' + "".join(f"<{kind}>{value}</{kind}>" for value in values) + "</tr>"


def _difference(now: float, before: float | None) -> str:
    if before is None:
        return "-"
    change = 100 * (now - before)
    return f'<span class="{"better" if change > 0 else "worse" if change < 0 else ""}">{change:+.1f}</span>'


def _curves(report: Report, other: Report | None) -> Iterator[str]:
    known = {} if other is None else {(s.name, o.id): o for s in other.sequences for o in s.objects}
    for sequence in report.sequences:
        yield f'<h3>{escape(sequence.name)}</h3><div class="curves">'
        for one in sequence.objects:
            before = known.get((sequence.name, one.id))
            lines = [_line(one.per_frame.j, "j"), _line(one.per_frame.f, "f")]
            if before is not None:
                lines += [_line(before.per_frame.j, "j other"), _line(before.per_frame.f, "f other")]
            caption = f"{escape(one.name or str(one.id))}: {one.frames[0]} to {one.frames[-1]}, {100 * one.scores.jf:.1f}"
            grid = f'<line x1="0" x2="{_WIDTH}" y1="{_HEIGHT / 2}" y2="{_HEIGHT / 2}" stroke="#b0b0bc" stroke-width=".5"/>'
            shape = f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img">{grid}{"".join(lines)}</svg>'
            yield f"<figure>{shape}<figcaption>{caption}</figcaption></figure>"
        yield "</div>"


def _line(values: Values, style: str) -> str:
    steps = np.linspace(0, _WIDTH, max(len(values), 2))[: len(values)]
    points = " ".join(f"{x:.1f},{_HEIGHT - 1 - value * (_HEIGHT - 2):.1f}" for x, value in zip(steps, values, strict=True))
    return f'<polyline class="{style}" points="{points}"/>'


@dataclass(frozen=True)
class _WorstFrame:
    sequence: str
    one: ObjectScore
    at: int


def _worst(report: Report) -> Iterator[str]:
    """Yield the frames with the lowest mean of both measures, at most a few of one object."""
    worst = []
    for sequence in report.sequences:
        for one in sequence.objects:
            both = one.per_frame.j + one.per_frame.f
            worst += [_WorstFrame(sequence.name, one, int(at)) for at in np.argsort(both, kind="stable")[:_PER_OBJECT]]
    worst.sort(key=lambda shown: float(shown.one.per_frame.j[shown.at] + shown.one.per_frame.f[shown.at]))
    truth, results = find_masks(Path(report.truth), named_rules(report.rules).mask_folders), find_masks(Path(report.results))
    for shown in worst[:_WORST]:
        frame, j, f = shown.one.frames[shown.at], shown.one.per_frame.j[shown.at], shown.one.per_frame.f[shown.at]
        true = _mask(truth, shown, frame)
        if true is None:
            continue
        found = _mask(results, shown, frame)
        found = np.zeros_like(true) if found is None or found.shape != true.shape else found
        differ = np.zeros((*true.shape, 3), np.uint8)
        differ[true & found], differ[true & ~found], differ[found & ~true] = (230, 230, 230), (60, 60, 220), (230, 140, 60)
        pictures = [_gray(true), _gray(found), differ]
        images = "".join(f'<img src="{_data(picture)}" alt="">' for picture in pictures)
        name = shown.one.name or f"{shown.sequence} {shown.one.id}"
        caption = f"{escape(name)}, {escape(frame)}: {report.measures[0]} {100 * j:.1f}, {report.measures[1]} {100 * f:.1f}"
        yield f"<figure>{images}<figcaption>{caption}</figcaption></figure>"


def _mask(folders: MaskFolders, shown: _WorstFrame, frame: str) -> NDArray[np.bool_] | None:
    """Return the mask of an object on a frame: bool [H,W]; None if there is no file."""
    name = shown.sequence
    if folders.objects:
        name = next((key for key in folders.videos.get(name, ()) if int(key.rsplit("/", 1)[1]) == shown.one.id), name)
    folder = next(iter(folders.sequences.values())) if folders.single else folders.sequences.get(name)
    path = None if folder is None else mask_files(folder).get(frame)
    if path is None:
        return None
    labels = read_labels(path)
    alone = folders.objects or shown.one.name == shown.sequence or set(np.unique(labels)) <= {0, VOID}
    return np.asarray(labels != 0 if alone else labels == shown.one.id, np.bool_)


def _gray(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.repeat(np.where(mask, np.uint8(230), np.uint8(30))[..., None], 3, 2)


def _data(picture: NDArray[Any]) -> str:
    scale = min(1.0, _PICTURE / picture.shape[1])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    _, data = cv2.imencode(".png", small)
    return "data:image/png;base64," + base64.b64encode(data.tobytes()).decode()
