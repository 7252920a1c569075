"""Attention in which each query keeps only its best scores among the tokens of the memory (the top-k filter of JointFormer)."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import torch
from torch import Tensor

from vosformer.nn import onednn
from vosformer.nn.attention import attend
from vosformer.nn.graphs import making_graph
from vosformer.nn.linear import token_product

# Scores that are held at once: about the cache of two cores, or a small share of a GPU's memory.
_CPU_SCORES, _GPU_SCORES = 1 << 22, 1 << 27
_CACHED = 1 << 18  # scores that one thread looks at: half a megabyte in bf16


def kth_largest(scores: Tensor, count: int) -> Tensor:
    """Return the `count`-th largest of the last dimension: [...,M] -> [...,1]; no gradient flows. count <= M."""
    scores = scores.detach()
    if scores.device.type != "cpu" or making_graph():
        return scores.topk(count, -1, sorted=False).values.amin(-1, keepdim=True)
    # NumPy's partition is faster than torch.topk: it uses AVX-512 or AVX2 where there is any.
    position = scores.shape[-1] - count
    values = scores.float().numpy() if scores.dtype in (torch.bfloat16, torch.float16) else scores.numpy()
    found = np.partition(values, position, -1)[..., position : position + 1].copy()
    return torch.from_numpy(found).to(scores.dtype)


def keep_best(scores: Tensor, count: int) -> None:
    """Set all but the `count` largest scores of each row to -inf, in place, on a CPU and without gradients.

    Those that are equal to the `count`-th largest stay, too. Every thread of PyTorch's takes some rows at a time, as many as fit its
    cache. 16-bit numbers are compared as integers of the same order: some processors sort twice as many of 16 bits at once, others
    know only wider ones.

    Args:
        scores: [rows,M] of a floating dtype, rows may lie apart; count <= M.
        count: k.
    """
    kind = torch.int16 if scores.element_size() == 2 else None
    values = (scores if kind is None else scores.view(kind)).numpy()
    least = torch.tensor(-torch.inf, dtype=scores.dtype).view(kind or scores.dtype).numpy()
    position, rows = values.shape[1] - count, max(1, _CACHED // values.shape[1])

    def some(start: int) -> None:
        part = values[start : start + rows]
        # Negative numbers are ordered the other way round: all bits but the sign are turned.
        keys = part if kind is None else (part ^ ((part >> 15) & 0x7FFF)).astype(_quick_integer(), copy=False)
        found = np.partition(keys, position, 1)[:, position : position + 1]
        np.copyto(part, least, where=keys < found)

    starts = range(0, len(values), rows)
    threads = min(torch.get_num_threads(), len(starts))
    if threads == 1:
        for start in starts:
            some(start)
    else:
        list(_pool(threads).map(some, starts))


@cache
def _quick_integer() -> type[np.int16] | type[np.int32]:
    """Measure once which integers NumPy partitions faster here."""
    some = np.random.default_rng(0).integers(-(1 << 15), 1 << 15, (8, 2048))

    def seconds(kind: type[np.int16] | type[np.int32]) -> float:
        times = []
        for _ in range(3):
            begin = time.perf_counter()
            np.partition(some.astype(kind), 2000, 1)
            times.append(time.perf_counter() - begin)
        return min(times)

    return np.int16 if seconds(np.int16) < seconds(np.int32) else np.int32


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "topk")


def attend_topk(
    q: Tensor,
    memory: tuple[Tensor, Tensor],
    current: tuple[Tensor, Tensor],
    heads: int,
    count: int,
    gate: Tensor | None = None,
) -> Tensor:
    """Multi-head attention of a frame to the `count` best tokens of the memory, for each head and query, and to all of its own.

    One softmax over both. A score counts if it is not below the `count`-th largest one; where several are equal to it, all count.
    Scores are computed in chunks of queries, so that the full matrix never exists.

    Args:
        q: [S,N,C] queries of the current frame.
        memory: keys and values [S,M,C] of the memory.
        current: keys and values [S,N,C] of the current frame.
        heads: number of heads; divides C.
        count: k.
        gate: [S,M+N,1] in [0,1], how much each key counts (see `attention.attend`); closed ones are never among the best.

    Returns:
        [S,N,C].
    """
    keys, values = (torch.cat(pair, 1) for pair in zip(memory, current, strict=True))
    remembered = memory[0].shape[1]
    if count >= remembered:
        return attend(q, keys, values, heads, gate)
    queries, keys, values = (_heads(x, heads) for x in (q, keys, values))
    queries = queries * (q.shape[2] // heads) ** -0.5
    bias = None if gate is None else torch.log(gate.float() + 1e-30).to(q.dtype).transpose(1, 2)  # [S,1,M+N]
    if making_graph() or bias is not None:
        # Head by head: the number of chunks may not depend on the size of the map.
        parts = []
        for h in range(heads):
            scores = queries[:, h] @ keys[:, h].transpose(1, 2)
            parts.append(_filter(scores if bias is None else scores + bias, remembered, count) @ values[:, h])
        return torch.cat(parts, 2)
    if onednn.serves(q):
        return _by_product(queries, keys, values, remembered, count)
    limit = _CPU_SCORES if q.device.type == "cpu" else _GPU_SCORES
    rows = max(1, limit // (heads * keys.shape[2]))
    slots = []
    for s in range(q.shape[0]):
        parts = [_filter(part @ keys[s].transpose(1, 2), remembered, count) @ values[s] for part in queries[s].split(rows, 1)]
        slots.append(torch.cat(parts, 1))
    return torch.stack(slots).transpose(1, 2).flatten(2)


def _by_product(queries: Tensor, keys: Tensor, values: Tensor, remembered: int, count: int) -> Tensor:
    """Return the same by the fast products of a CPU, head by head: [S,heads,...,d] each -> [S,N,C]."""
    slots, heads, tokens, d = queries.shape
    out = values.new_empty(slots, tokens, heads, d)
    rows = max(64, _CPU_SCORES // 4 // keys.shape[2])
    for s in range(slots):
        for h in range(heads):
            own, mine = keys[s, h].contiguous(), values[s, h].t().contiguous()
            for start in range(0, tokens, rows):
                scores = token_product(queries[s, h, start : start + rows], own)
                out[s, start : start + rows, h] = token_product(_filter(scores, remembered, count), mine)
    return out.flatten(2)


def _filter(scores: Tensor, remembered: int, count: int) -> Tensor:
    """Return the weights of scores [...,M+N] of which the first M are filtered; `scores` is overwritten."""
    if making_graph():
        past, own = scores[..., :remembered], scores[..., remembered:]
        past = past.masked_fill(past < kth_largest(past, count), -torch.inf)
        return torch.softmax(torch.cat([past, own], -1), -1)
    of_memory = scores[..., :remembered]
    if scores.device.type == "cpu" and not scores.requires_grad:
        keep_best(scores.view(-1, scores.shape[-1])[:, :remembered], count)
    else:
        of_memory.masked_fill_(of_memory < kth_largest(of_memory, count), -torch.inf)
    return torch.softmax(scores, -1)


def _heads(x: Tensor, heads: int) -> Tensor:
    """[S,M,C] -> [S,heads,M,d]."""
    return torch.unflatten(x, 2, (heads, -1)).transpose(1, 2)
