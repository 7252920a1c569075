"""`vosformer export`: files that run in onnxruntime and torch, from the command line, and what cannot be exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_clip import HEIGHT, SIZE, WIDTH, agreement

from vosformer.cli import main
from vosformer.encoders import swin
from vosformer.encoders.convmae import ConvViTSize
from vosformer.encoders.vit import ViTSize
from vosformer.errors import InputError, OutputError
from vosformer.export import export
from vosformer.export.runner import Session as Runner
from vosformer.inference.session import Session
from vosformer.registry import new_model

_CONV, _VIT = ConvViTSize((16, 32, 48), (1, 1, 2), (4, 4, 4), 3), ViTSize(48, 2, 3)
FAMILIES: dict[str, dict[str, Any]] = {
    "deaot-s": {"encoder": "mobilenet_v2"},
    "r50-aot-l": {"encoder": "resnet50", "layers": 1},
    "swinb-deaot-l": {"encoder": "swin_base", "layers": 1},
    "convvit-aot-l": {"layers": 1},
    "aost": {},
    "aost-share": {},
    "simvos-b": {"size": _VIT},
    "simvos-tiny": {"size": _VIT},
    "jointformer-tiny": {"size": _CONV},
    "jointformer-vit-b-middle": {},
    "jointformer-gru": {"size": _CONV},
    "jointformer-naive": {"size": _CONV},
    "onevos-tiny": {"size": _CONV},
    "onevos-tiny-d": {"size": _CONV},
    "onevos-vit-b": {"size": _VIT},
}
"""One variant for each way to encode, to read and to write; what makes it smaller still, or gives it the encoder of its name."""
SYSTEMS = ("aot-t", "aost", "deaot-t", "simvos-tiny", "jointformer-tiny", "onevos-tiny", "onevos-tiny-d")


@pytest.fixture(autouse=True)
def _small_swin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swin, "swin_base", lambda freeze_at: swin.Swin(8, (2, 2, 2), (1, 2, 4), 4, freeze_at=freeze_at))


def _exported(name: str, folder: Path, **options: Any) -> Session:
    # Random weights may leave pixels undecided: one that falls the other way changes all frames after it, also between two kernels of
    # PyTorch's own. With these seeds AOST, at all its depths, and the others do not differ from themselves.
    torch.manual_seed(2 if name.startswith("aost") else 0)
    model = new_model(name, tiny=True, **FAMILIES.get(name, {})).eval()
    if "size" not in options:
        options["size"] = model.geometry.place(HEIGHT, WIDTH, SIZE).network
    export(model, folder, name=name, frame_size=SIZE, **options)
    return Session(model, device="cpu", dtype="fp32", size=SIZE, closer="off", memory=options.get("memory", "default"))


def _runs(name: str, folder: Path, **options: Any) -> None:
    session = _exported(name, folder / "out", **options)
    assert agreement(session, Runner(folder / "out", size=SIZE, threads=1), 12, **options.get("options", {})) > 0.9995


def test_onnx_of_one_size(tmp_path: Path) -> None:
    import onnx

    _runs("aot-t", tmp_path)
    about = json.loads((tmp_path / "out" / "model.json").read_text())
    assert {"encode", "read", "write", "begin"} == set(about["graphs"])
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted(
        [*(each["file"] for each in about["graphs"].values()), "model.json", "runner.py", "weights.bin"]
    )
    for each in about["graphs"].values():
        path = tmp_path / "out" / each["file"]
        onnx.checker.check_model(str(path), full_check=True)
        graph = onnx.load(str(path), load_external_data=False)
        assert max(opset.version for opset in graph.opset_import if not opset.domain) >= 20
        notes = {prop.key: prop.value for prop in graph.metadata_props}
        assert notes["variant"] == "aot-t"
        assert notes["hash"] == about["hash"]
        assert json.loads(notes["policy"]) == about["policy"]
        assert json.loads(notes["geometry"])["mean"] == about["geometry"]["mean"]


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_of_every_family(name: str, tmp_path: Path) -> None:
    _runs(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2])
def test_onnx_of_a_smaller_depth(depth: int, tmp_path: Path) -> None:
    _runs("aost", tmp_path, memory="every-2", options={"depth": depth})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deaot-s", "jointformer-tiny", "onevos-tiny-d"])
def test_onnx_with_a_fixed_bank(name: str, tmp_path: Path) -> None:
    import onnx

    _runs(name, tmp_path, fixed_bank=True)
    for path in (tmp_path / "out").glob("*.onnx"):
        graph = onnx.load(str(path), load_external_data=False).graph
        assert all(side.HasField("dim_value") for each in graph.input for side in each.type.tensor_type.shape.dim)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_onnx_of_any_size(name: str, tmp_path: Path) -> None:
    session = _exported(name, tmp_path / "out", size=None)
    for size in (SIZE, 64):
        other = Session(session.model, device="cpu", dtype="fp32", size=size, closer="off")
        assert agreement(other, Runner(tmp_path / "out", size=size, threads=1), 8) > 0.9995


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_onnx_in_half_precision(name: str, tmp_path: Path) -> None:
    # Random weights leave many pixels undecided between two labels; `agreement` holds the probabilities together, too.
    session = _exported(name, tmp_path / "out", dtype=torch.float16)
    assert agreement(session, Runner(tmp_path / "out", size=SIZE, threads=1), 8) > 0.98


class Program:
    """A program of torch.export as a graph of the runner."""

    def __init__(self, path: Path) -> None:
        about = json.loads((path.parent / "model.json").read_text())["graphs"][path.stem]
        program = torch.export.load(path)
        inputs = [node for node in program.graph.nodes if node.op == "placeholder"][-len(about["inputs"]) :]
        self.shapes = {
            name: tuple(side if isinstance(side, int) else None for side in node.meta["val"].shape)
            for name, node in zip(about["inputs"], inputs, strict=True)
        }
        self._kinds = {name: node.meta["val"].dtype for name, node in zip(about["inputs"], inputs, strict=True)}
        self._outputs, self._run = about["outputs"], program.module()

    def __call__(self, values: dict[str, Any]) -> dict[str, Any]:
        inputs = [torch.from_numpy(np.ascontiguousarray(values[name])).to(kind) for name, kind in self._kinds.items()]
        with torch.no_grad():
            return dict(zip(self._outputs, (each.numpy() for each in self._run(*inputs)), strict=True))


@pytest.mark.parametrize("name", ["deaot-t", *(pytest.param(n, marks=pytest.mark.slow) for n in SYSTEMS if n != "deaot-t")])
def test_programs_of_torch(name: str, tmp_path: Path) -> None:
    session = _exported(name, tmp_path / "out", to="torch")
    assert agreement(session, Runner(tmp_path / "out", size=SIZE, load=Program), 6) > 0.9995


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    aot = new_model("aot-t", tiny=True)
    for model, options, message in (
        (new_model("aot-t", tiny=True, local_frames=2), {}, "local_frames=2"),
        (new_model("jointformer-tiny", tiny=True, mode="a"), {}, "mode 'a'"),
        (new_model("onevos-tiny", tiny=True, decouple_memory=False), {}, "depends on the frame that follows"),
        (aot, {"dtype": torch.bfloat16}, "not in bfloat16"),
        (aot, {"size": (96, 128)}, "multiples of 16 pixels and 1 more"),
        (aot, {"capacity": 0}, "at least 1 frame"),
        (aot, {"fixed_bank": True}, "a fixed bank needs a fixed size"),
        (aot, {"options": {"depth": 2}}, "not known to this model"),
        (aot, {"to": "coreml"}, "expected onnx or torch"),
    ):
        with pytest.raises(InputError, match=message):
            export(model, tmp_path / "out", **options)
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="is there already"):
        export(aot, tmp_path / "there")
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_be_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = new_model("aot-t", tiny=True)
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda image: encode(image if float(image.mean()) > 0 else -image))
    for size, message in (((97, 129), "encode of this model cannot be made a graph for frames of this size"), (None, "--size")):
        with pytest.raises(InputError, match=message):
            export(model, tmp_path / "out", to="torch", size=size, frame_size=SIZE)
        assert not list(tmp_path.iterdir())


def test_the_command_line_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    for words, message in (
        (["aot-t", "-o", out], "no weights come with"),
        (["nonsense", "-o", out], "there is no variant"),
        (["default", "-o", out, "--size", "large"], "expected HxW"),
        (["default", "-o", out, "--size", "480x854"], "multiples of 16 pixels and 1 more"),
    ):
        assert main(["export", *words]) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")
