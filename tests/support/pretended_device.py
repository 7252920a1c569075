"""A device that this machine does not have, pretended: its tensors say that they are elsewhere, and hold values all the same.

Computing is done on the CPU. What crosses over to the host or from it is counted, and what mixes tensors of both sides fails, as it
would on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("meta")
_aten = torch.ops.aten
_INDEXING = (_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default, _aten._index_put_impl_.default)


class Elsewhere(Tensor):
    """A tensor that says it lies on the pretended device."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> Elsewhere:
        with torch.inference_mode(False):  # views of ordinary tensors are ordinary ones, in inference mode, too
            twin = Tensor._make_wrapper_subclass(
                cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=DEVICE, requires_grad=False
            )
        twin.held = held
        return twin

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{func} outside of PretendedDevice")


class PretendedDevice(TorchDispatchMode):
    """Within this context `DEVICE` works.

    Attributes:
        down: the operations that the host waited for.
        up: those that took a tensor of the host over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def forget(self) -> None:
        self.down: list[str] = []
        self.up: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # in inference mode these come as a whole; their parts say whether something crosses over
                return func.decompose(*args, **kwargs)
        inputs = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        there = [x for x in inputs if isinstance(x, Elsewhere)]
        here = [x for x in inputs if not isinstance(x, Elsewhere) and x.dim()]  # numbers may be given from here
        asked = kwargs.get("device")
        result_there = bool(there) if asked is None else torch.device(asked).type == DEVICE.type
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        if func is _aten._local_scalar_dense.default and there:
            self.down.append(str(func))
            result_there = False
        elif there and _counts(func, there):
            self.down.append(str(func))
        elif func in (_aten._to_copy.default, _aten.copy_.default) and there and here:
            (self.up if isinstance(args[0], Elsewhere) else self.down).append(str(func))
        elif func is _aten._to_copy.default and bool(there) != result_there:
            (self.up if result_there else self.down).append(str(func))
        elif func in _INDEXING and there and here:  # a list of places has become a tensor here
            self.up.append(str(func))
        elif there and here:
            raise RuntimeError(f"{func}: tensors of two devices")
        out = func(*tree_map_only(Elsewhere, lambda x: x.held, args), **tree_map_only(Elsewhere, lambda x: x.held, kwargs))
        if not result_there:
            return out
        known = {id(x.held): x for x in there}  # what was written in place comes back as it was given
        return tree_map_only(Tensor, lambda x: known[id(x)] if id(x) in known else Elsewhere(x), out)


def _counts(func: Any, inputs: list[Elsewhere]) -> bool:
    """Tell whether the host has to know how many values come out."""
    if func in _INDEXING:
        return any(x.dtype in (torch.bool, torch.uint8) for x in inputs[1:])
    return torch.Tag.dynamic_output_shape in func.tags


def moved_there(model: nn.Module) -> nn.Module:
    """Move the weights of a model, which is changed."""
    for module in model.modules():
        for own in (module._parameters, module._buffers):
            for name, tensor in own.items():
                if tensor is not None:
                    own[name] = Elsewhere(tensor.detach())  # type: ignore[assignment]
    return model
