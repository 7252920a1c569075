"""Models with their memory for other runtimes: ONNX and torch.export, and a runner without torch."""

from vosformer.export.exporting import Target, export

__all__ = ["Target", "export"]
