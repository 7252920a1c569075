"""Thousands of frames and hundreds of sessions, opened, dropped and killed: memory stays flat and nothing is mixed up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from itertools import count

import httpx
import numpy as np
import pytest
from serving import TOKEN, resident_mb, served_apart, tiny_session
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from vosformer import Client
from vosformer.errors import ServerError
from vosformer.serve import wire
from vosformer.testing import moving_squares

AT_ONCE = 6


@cache
def clip(kind: int) -> tuple[list[np.ndarray], np.ndarray]:
    images, labels = moving_squares(((1, 2), (5, -3), (70_000,), (9, 4, 6))[kind % 4], 20)
    return [np.roll(image, 7 * kind, 1) for image in images], np.roll(labels[0], 7 * kind, 1)


@cache
def wanted(kind: int) -> list[np.ndarray]:
    session, (images, labels) = tiny_session(), clip(kind)
    return [session.step(image, labels if n == 0 else None).labels for n, image in enumerate(images)]


def follow(client: Client, kind: int, frames: int) -> None:
    """Send a clip and compare every answer."""
    images, labels = clip(kind)
    for n in range(frames):
        out = client.step(images[n], labels if n == 0 else None)
        assert np.array_equal(out.labels, wanted(kind)[n]), (kind, n)


def opened(url: str) -> Client:
    """Connect, however full the server is for the moment (a session that was killed may just be computing a last frame)."""
    for attempt in count():
        try:
            return Client(url, TOKEN, timeout=600)
        except ServerError:
            if attempt > 200:
                raise
            time.sleep(0.05)
    raise AssertionError


def cut(client: Client) -> None:
    """Break the connection off without a word, with a frame under way."""
    images, _ = clip(0)
    entry, picture = wire.encode_frame(images[0], "raw", 90)
    client._socket.send(wire.pack({"do": "step", "frame": entry}, picture))
    client._socket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client._socket.socket.close()


def follow_until_killed(url: str, kind: int) -> None:
    client = opened(url)
    while True:
        follow(client, kind, 20)
        client.reset()


def soak(sessions: int, frames: int, killed: int) -> None:
    """Open sessions with so many frames each; every second one is dropped or cut off, and some die with their process."""
    for kind in range(8):
        wanted(kind)
    start = multiprocessing.get_context("forkserver")
    start.set_forkserver_preload(["vosformer.serve.client", "vosformer.testing", "serving"])
    began = time.monotonic()
    with served_apart(AT_ONCE + 2) as (url, pid):

        def one(number: int) -> None:
            client = opened(url)
            follow(client, number % 8, frames)
            (client.close if number % 2 else lambda: cut(client))()

        def die(number: int) -> None:
            child = start.Process(target=follow_until_killed, args=(url, number % 8), daemon=True)
            child.start()
            time.sleep(3)
            os.kill(child.pid or 0, signal.SIGKILL)
            child.join()

        sizes: list[float] = []
        files: list[int] = []
        with ThreadPoolExecutor(AT_ONCE) as pool, ThreadPoolExecutor(1) as other:
            dying = [other.submit(die, number) for number in range(killed)]
            for begin in range(0, sessions, max(sessions // 10, 1)):
                list(pool.map(one, range(begin, min(begin + max(sessions // 10, 1), sessions))))
                sizes.append(resident_mb(pid))
                files.append(len(os.listdir(f"/proc/{pid}/fd")))
                print(
                    f"{min(begin + max(sessions // 10, 1), sessions)} sessions: {sizes[-1]:.1f} MB, {files[-1]} files",
                    flush=True,
                )
            for work in dying:
                work.result()
        for _ in range(100):
            left = httpx.get(f"{url}/health").json()["sessions"]
            if left == 0:
                break
            time.sleep(0.1)
        print(f"{sessions} sessions of {frames} frames, and {killed} processes killed, in {time.monotonic() - began:.0f} s")
        assert left == 0
        assert sizes[-1] < sizes[2] + 15, sizes
        assert max(files) < min(files) + 4 * AT_ONCE, files


def test_a_short_soak() -> None:
    soak(20, 4, 1)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_ten_thousand_frames_in_five_hundred_sessions() -> None:
    soak(500, 20, 40)


def test_a_reader_that_does_not_read_is_held_up_and_costs_nothing() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3, (240, 320)).astype(np.int32)
    image = rng.integers(0, 256, (240, 320, 3)).astype(np.uint8)
    entry, picture = wire.encode_frame(image, "raw", 90)
    message = wire.pack({"do": "step", "frame": entry, "rle": wire.encode_masks(noise, (1, 2))}, picture)
    with served_apart(3) as (url, pid):
        follow(opened(url), 1, 3)
        address = f"ws{url.removeprefix('http')}/v1/stream"
        head = {"Authorization": f"Bearer {TOKEN}"}
        taken: list[float] = []

        def send(slow: ClientConnection) -> None:
            with suppress(ConnectionClosed):
                for _ in range(4000):  # 1 GB
                    slow.send(message)
                    taken.append(time.monotonic())

        with connect(address, additional_headers=head, compression=None, max_queue=1, ping_interval=None) as slow:
            sender = threading.Thread(target=send, args=(slow,), daemon=True)
            sender.start()
            try:
                early = resident_mb(pid)
                while len(taken) < 20 or time.monotonic() - taken[-1] < 3:  # until nothing is taken any more
                    time.sleep(0.25)
                print(f"{len(taken)} messages of {len(message)} bytes were taken; resident MB {early}, then {resident_mb(pid)}")
                assert len(taken) < 2000
                assert resident_mb(pid) < early + 60  # what the sockets and the queue hold, of 1 GB that was sent
                follow(opened(url), 2, 5)  # others are served meanwhile
            finally:
                slow.socket.shutdown(socket.SHUT_RDWR)
                sender.join(10)
