"""What commands print comes out as it is: no brackets are lost, and no `:car:` becomes a picture of one."""

from __future__ import annotations

import ast
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from vosformer import cli
from vosformer.cli import main, terminal
from vosformer.io import indexed_png

NAME = "a [b] :car:"
FAST = ["--model", "default-fast", "--size", "48", "--threads", "1"]


def write_masks(folder: Path, *ids: int) -> None:
    """Three masks of 24 x 40 pixels, with so many objects."""
    folder.mkdir(parents=True)
    labels = np.zeros((24, 40), np.int32)
    for i in ids:
        labels[4:20, 10 * i : 10 * i + 6] = i
    for t in range(3):
        (folder / f"{t:05d}.png").write_bytes(indexed_png(labels))


def write_frames(folder: Path, suffix: str = ".png") -> None:
    folder.mkdir(parents=True)
    for t in range(3):
        Image.new("RGB", (40, 24), (90 * t, 80, 70)).save(folder / f"{t:05d}{suffix}")


def lines(printed: str, beginning: str) -> str:
    return "\n".join(line for line in printed.splitlines() if line.startswith(beginning))


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_notes_and_table_of_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]) -> None:
    write_masks(tmp_path / NAME / "truth" / NAME, 1)
    write_masks(tmp_path / NAME / "found" / NAME, 1, 2)
    assert main(["evaluate", str(tmp_path / NAME / "found"), "--truth", str(tmp_path / NAME / "truth"), *more]) == 0
    out, err = capsys.readouterr()
    assert f"{NAME} 2" in lines(err, "note: ids that the results have and the true masks do not")
    if not more:
        assert f"{NAME}/found against " in " ".join(out.split())
        assert lines(out, f" {NAME} ")


def test_notes_of_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, video = tmp_path / NAME, "P01_107_seq_00001"
    write_frames(root / "JPEGImages" / "480p" / video, ".jpg")
    write_masks(root / "Annotations" / "480p" / video, 1)
    (root / "ImageSets" / "2022").mkdir(parents=True)
    (root / "ImageSets" / "2022" / "val.txt").write_text(video)
    assert main(["benchmark", "visor-val", str(root), "-o", str(tmp_path / "out"), *FAST]) == 0
    assert f"and {root} has no " in lines(capsys.readouterr().err, "note: the server wants polygons")


def test_notes_and_summary_of_convert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_masks(tmp_path / "masks", 1)
    write_frames(tmp_path / "frames")
    (tmp_path / "frames" / f"{NAME}.txt").touch()
    out = tmp_path / f"{NAME}.json"
    words = ["convert", str(tmp_path / "masks"), "--to", "coco", "-o", str(out), "--frames", str(tmp_path / "frames")]
    assert main(words) == 0
    err = capsys.readouterr().err
    assert f"{NAME}.txt" in lines(err, f"note: {tmp_path / 'frames'} holds files")
    assert lines(err, "3 masks of 1 objects").endswith(f"written to {out}")


def test_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A long name is not broken into lines, either."""
    Image.new("RGB", (40, 24)).save(tmp_path / "one.png")
    out = ["-o", str(tmp_path / "x.png")]
    commands = {
        "--point 7:abc: expected ID:X,Y": ["mark", str(tmp_path / "one.png"), "--point", "7:abc", *out],
        f"{NAME * 9}.mp4": ["frame", f"{NAME * 9}.mp4", *out],
        f"there is no command '{NAME * 9}'": [NAME * 9],
    }
    for said, words in commands.items():
        assert main(words) == 2
        assert said in lines(capsys.readouterr().err, "error: ")


def test_tables_are_as_wide_as_the_terminal_or_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def table() -> Table:
        made = Table("name", title=f"{NAME} is its title, a long one")
        made.add_row(f"{NAME} " * 20)
        return made

    terminal.show_table(table())
    assert f"{NAME} " * 20 in capsys.readouterr().out
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(terminal, "results", lambda: terminal._console(width=60))
    terminal.show_table(table())
    assert {len(row) for row in lines(screen.getvalue(), "│").splitlines()} == {60}
    terminal.show_table(table(), whole=True)
    assert f"{NAME} " * 20 in screen.getvalue()


def test_lines_are_not_broken(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.messages().print(f"{NAME} " * 50)
    assert capsys.readouterr().err == f"{NAME} " * 50 + "\n"


def test_consoles_are_made_in_one_place() -> None:
    """Elsewhere a console would read user's text as markup again."""
    sources = {path.name: ast.parse(path.read_text()) for path in Path(cli.__file__).parent.glob("*.py")}
    calls = {name: [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)] for name, tree in sources.items()}
    assert [name for name, made in calls.items() if any(ast.unparse(func).endswith("Console") for func in made)] == [
        "terminal.py"
    ]
