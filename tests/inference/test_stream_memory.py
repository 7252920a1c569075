"""A stream of 3,000 frames needs no more memory at its end than after its first 200."""

from __future__ import annotations

import numpy as np
import pytest

from vosformer.inference.session import Session


def resident_mb() -> float:
    """Megabytes of this process that are in memory now."""
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_resident_memory_is_flat():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (144, 400, 3), np.uint8)
    labels = np.zeros((144, 192), np.int32)
    labels[40:80, 30:70], labels[60:120, 100:150] = 1, 2
    session = Session("default", device="cpu")
    session.step(picture[:, :192], labels)
    sizes = []
    for t in range(1, 3000):
        left = abs(t % 400 - 200)
        session.step(np.ascontiguousarray(picture[:, left : left + 192]))
        if t >= 200 and t % 50 == 0:
            sizes.append(resident_mb())
    assert max(sizes) < 1.03 * sizes[0], sizes
