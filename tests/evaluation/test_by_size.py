"""`benchmarks/by_size.py`: every object in its class of areas, means over objects."""

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))  # one benchmark imports another by its name
by_size = importlib.import_module("by_size")


def written(folder: Path) -> Path:
    """Two clips of 960 lines: objects of 400 px (as 480 lines count) in the first, which comes later, and 2,000."""
    for clip, side, late in (("few-000", 40, True), ("alike-001", 89.4427191, False)):
        (folder / "truth" / clip).mkdir(parents=True)
        for frame in range(2):
            labels = np.zeros((960, 1000), np.uint8)
            if frame or not late:
                labels.reshape(-1)[: round(side * side)] = 1
            Image.fromarray(labels).save(folder / "truth" / clip / f"{frame:05d}.png")
    rows = [
        {"name": name, "objects": [{"id": 1, "J": {"mean": j}, "F": {"mean": f}}]}
        for name, j, f in (("few-000", 0.2, 0.4), ("alike-001", 0.8, 0.9))
    ]
    (folder / "scores.json").write_text(json.dumps({"truth": str(folder / "truth"), "sequences": rows}))
    return folder


def test_objects_are_counted_at_480_lines_in_their_first_frame(tmp_path: Path) -> None:
    few, alike = by_size.objects(written(tmp_path))
    assert few == ("few-000", 400, 0.2, 0.4)
    assert alike == ("alike-001", 2000, 0.8, 0.9)


def test_classes_and_means(tmp_path: Path) -> None:
    console = Console(width=100, record=True)
    console.print(by_size.table(by_size.objects(written(tmp_path))))
    rows = [line.split("│")[1:-1] for line in console.export_text().splitlines() if "│" in line]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["below 500 px", "1", "30.0", "20.0", "40.0"],
        ["2,000 to 5,000 px", "1", "85.0", "80.0", "90.0"],
        ["below 2,000 px", "1", "30.0", "20.0", "40.0"],
        ["few", "1", "30.0", "20.0", "40.0"],
        ["alike", "1", "85.0", "80.0", "90.0"],
        ["all", "2", "57.5", "50.0", "65.0"],
    ]


@pytest.mark.parametrize(("area", "name"), [(499.9, "below 500 px"), (500, "500 to 1,000 px"), (15000, "15,000 px and more")])
def test_bounds(area: float, name: str) -> None:
    assert by_size.size(area) == name


def test_true_masks_that_are_gone_are_named(tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps({"truth": str(tmp_path / "nowhere"), "sequences": []}))
    with pytest.raises(SystemExit, match="nowhere"):
        by_size.objects(tmp_path)
