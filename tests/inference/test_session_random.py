"""Hypothesis throws frames, sizes, ids and add / remove / correct / branch orders at a session: it never breaks its promises."""

from __future__ import annotations

import numpy as np
from dummy_models import ColorModel, PerObjectColorModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vosformer.errors import InputError
from vosformer.inference.session import Session

SIZES = st.one_of(
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from([(1, 1), (1, 3840), (2160, 3840), (2159, 11), (479, 853)]),
)
IDS = st.integers(-(2**31), 2**31 - 1).filter(bool)
ORDERS = st.lists(
    st.one_of(
        st.tuples(st.just("step"), st.none()),
        st.tuples(st.just("give"), st.lists(IDS, min_size=1, max_size=6)),
        st.tuples(st.just("correct"), st.integers(0, 20)),
        st.tuples(st.just("remove"), st.integers(0, 20)),
        st.tuples(st.just("branch"), st.none()),
        st.tuples(st.just("wrong"), st.none()),
    ),
    max_size=7,
)


def paint(rng: np.random.Generator, size: tuple[int, int], ids: list[int]) -> np.ndarray:
    labels = np.zeros(size, np.int64)
    for i in ids:
        top, left = rng.integers(size[0]), rng.integers(size[1])
        labels[top : top + 1 + size[0] // 3, left : left + 1 + size[1] // 3] = i
    return labels


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([ColorModel, PerObjectColorModel]), SIZES, IDS, ORDERS, st.integers(0, 2**20))
def test_any_order_of_events(model, size, first, orders, seed):
    rng = np.random.default_rng(seed)
    session = Session(model(), device="cpu", dtype="fp32", size=48)
    frame = rng.integers(0, 256, (*size, 3), np.uint8)
    session.step(frame, paint(rng, size, [first]))
    tracked = {first}
    for what, value in orders:
        labels = None
        if what == "give":
            labels = paint(rng, size, value)
            tracked |= {int(i) for i in np.unique(labels) if i}
        elif what == "correct" and tracked:
            labels = paint(rng, size, [sorted(tracked)[value % len(tracked)]])
        elif what == "remove" and tracked:
            gone = sorted(tracked)[value % len(tracked)]
            session.remove(gone)
            tracked.remove(gone)
        elif what == "branch":
            before = session.state
            a = session.step(frame).labels
            session.state = before
            assert np.array_equal(session.step(frame).labels, a)
            session.state = before
        elif what == "wrong":
            for bad in (frame[..., :2], frame.astype(np.int16)):
                try:
                    session.step(bad)
                except InputError:
                    continue
                raise AssertionError("bad input was taken")
        out = session.step(frame, labels)
        assert out.labels.shape == size
        assert out.labels.dtype == np.int32
        assert set(out.ids) == tracked
        assert {int(i) for i in np.unique(out.labels)} <= tracked | {0}
        assert all(0 <= out.score(i) <= 1 for i in out.ids)
        if labels is not None:
            assert np.array_equal(out.labels[labels != 0], labels[labels != 0])
        if out.ids and size[0] * size[1] < 10_000:
            chance = out.probability(out.ids[0])
            assert chance.shape == size
            assert np.isfinite(chance).all()
