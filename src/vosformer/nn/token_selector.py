"""The Dynamic Token Selector of OneVOS (paper Sec. 3.3, Eq. 7): which reference tokens a layer attends to and remembers.

No public code has it. Where the paper is silent, the choices are: z has C / 4 channels (one linear layer and GELU), the second MLP
has one hidden layer of C / 4, the Gumbel temperature is 1, and a fresh selector keeps everything (bias 2 on "keep").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vosformer.nn.graphs import making_graph
from vosformer.nn.linear import TokenLinear

_RATIO_MOMENTUM = 0.01
_TEMPERATURE = 1.0
_KEEP_BIAS = 2.0


class TokenSelector(nn.Module):
    """Chooses tokens from what each says itself and from what all say together.

    Args:
        channels: C.

    Attributes:
        ratio: [], r_l: the running mean of the share of tokens that are selected in training; 1 before any training.
    """

    ratio: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // 4)
        self.norm = nn.LayerNorm(channels, 1e-6)
        self.local = TokenLinear(channels, hidden)
        self.joint = TokenLinear(2 * hidden, hidden)
        self.score = TokenLinear(hidden, 2)
        self.register_buffer("ratio", torch.ones(()))

    def start(self) -> None:
        """Fresh scores that keep every token."""
        nn.init.zeros_(self.score.weight)
        with torch.no_grad():
            self.score.bias.copy_(torch.tensor([0.0, _KEEP_BIAS]))

    def encode(self, tokens: Tensor) -> Tensor:
        """Return the z of Eq. 7, MLP(Norm(e)): [S,N,C] -> [S,N,C/4]."""
        z: Tensor = F.gelu(self.local(self.norm(tokens)))
        return z

    def logits(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Before the softmax of Eq. 7, index 1 = keep.

        Args:
            z: [S,N,C/4] of the reference frame's tokens.
            context: [S,N',C/4] what is pooled to the frame's own z (DTS), or the current frame's (DTS-t, Table 4b).

        Returns:
            [S,N,2].
        """
        pooled = (z if context is None else context).amax(1, keepdim=True).expand(-1, z.shape[1], -1)
        scores: Tensor = self.score(F.gelu(self.joint(torch.cat([pooled, z], 2))))
        return scores

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Gates [S,N,1]: 1 = selected, 0 = not.

        In training a straight-through Gumbel-softmax, so that gradients reach the scores, and `ratio` is kept up; else the arg max.
        """
        logits = self.logits(z, context)
        if not self.training:
            return (logits[..., 1:] > logits[..., :1]).to(z.dtype)
        gate = F.gumbel_softmax(logits.float(), tau=_TEMPERATURE, hard=True)[..., 1:]
        with torch.no_grad():
            self.ratio.lerp_(gate.mean().to(self.ratio.dtype), _RATIO_MOMENTUM)
        return gate.to(z.dtype)


def take(layer: Mapping[str, Tensor], gate: Tensor, ragged: bool) -> dict[str, Tensor]:
    """Only the selected tokens of a layer, in their order.

    Args:
        layer: name -> [S,N,C].
        gate: [S,N,1], 1 = selected.
        ragged: slots may have selected different numbers. Then all are as long as the longest, and `gate` in the result says which
            tokens are real; the others are zeros.

    Returns:
        name -> [S,n,C], and `position` int32 [S,n,1], each token's position among the N.
    """
    chosen = gate[..., 0] > 0.5
    longest = chosen.shape[1] if gate.is_meta else int(chosen.sum(1).max())  # shapes only: assume the most
    positions = chosen.int().argsort(dim=1, descending=True, stable=True)[:, :longest, None]
    taken = {name: tensor.gather(1, positions.expand(-1, -1, tensor.shape[2])) for name, tensor in layer.items()}
    if ragged:
        real = gate.gather(1, positions)
        taken = {name: tensor * real.to(tensor.dtype) for name, tensor in taken.items()}
        taken["gate"] = real
    taken["position"] = positions.int()
    return taken


def received_attention(q: Tensor, k: Tensor, heads: int, gate: Tensor | None = None, chunk: int = 256) -> Tensor:
    """Return how much attention each key receives: the softmax weights, averaged over queries and heads.

    Args:
        q: [S,N,C].
        k: [S,M,C].
        heads: number of heads.
        gate: [S,M,1], or none.
        chunk: queries at a time; the full score matrix is never held.

    Returns:
        float32 [S,M], each row sums to 1.
    """
    keys = k.reshape(*k.shape[:2], heads, -1).permute(0, 2, 3, 1)
    queries = q.reshape(*q.shape[:2], heads, -1).transpose(1, 2) * (q.shape[2] // heads) ** -0.5
    bias = None if gate is None else torch.log(gate.float() + 1e-30).transpose(1, 2)[:, None]
    total = torch.zeros(k.shape[0], k.shape[1], device=k.device)
    # In a graph head by head: there the number of chunks may not depend on the size of the map.
    parts = torch.split(queries, 1, 1) if making_graph() else torch.split(queries, chunk, 2)
    heads_of = torch.split(keys, 1, 1) if making_graph() else [keys] * len(parts)
    for part, own in zip(parts, heads_of, strict=True):
        scores = (part @ own).float()
        total += (scores if bias is None else scores + bias).softmax(3).sum((1, 2))
    return total / (heads * q.shape[1])


def rate_loss(gates: Sequence[Tensor], rate: float = 0.5) -> Tensor:
    """Return the loss of DTS-Lr (Table 4b): the mean over layers of the squared distance between the selected share and a
    fixed rate.

    Args:
        gates: of each layer [S,N,1], with gradients (`Entry.layers[l]["gate"]` in training).
        rate: the share that the loss asks for.
    """
    return torch.stack([(gate.float().mean() - rate) ** 2 for gate in gates]).mean()
