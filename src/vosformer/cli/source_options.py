"""How the frames of a video are read: the options of every command that opens one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from vosformer.io import Source, open_source
from vosformer.io.levels import parse_range


@dataclass(frozen=True)
class SourceOptions:
    """How the frames of a video are read.

    Attributes:
        stream: which of several video streams of a file, from 0 (default: the one marked as default, of several the largest).
        range: LOW:HIGH, the values that become black and white, for pictures and video of more than 8 bits (default: found from
            frames of the whole source where they fill only a part of their range).
        allow_truncated: take what is there of a video file that was cut off.
    """

    stream: int | None = None
    range: Annotated[str | None, tyro.conf.arg(metavar="LOW:HIGH")] = None
    allow_truncated: bool = False

    def open(self, video: str) -> Source:
        """Open a video with these options; see `vosformer.io.open_source`.

        Raises:
            InputError: it cannot be read, or `range` is not understood.
        """
        levels = None if self.range is None else parse_range(self.range)
        chosen = None if levels is None else (levels.low, levels.high)
        return open_source(video, allow_truncated=self.allow_truncated, stream=self.stream, value_range=chosen)
