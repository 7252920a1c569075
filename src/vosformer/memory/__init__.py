"""Memory: what a system keeps of the frames it has seen."""

from vosformer.memory.memory import Memory

__all__ = ["Memory"]
