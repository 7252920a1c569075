"""One frame, from the bytes that a client sent to the bytes that it gets, around `Session.step`."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import numpy as np
from pydantic import ValidationError

from vosformer.errors import InputError
from vosformer.inference.prediction import Prediction
from vosformer.inference.session import Session
from vosformer.serve import wire
from vosformer.serve.requests import Said, SentFrame, Step
from vosformer.serve.store import Limits
from vosformer.serve.wire import Image, Labels, MaskFormat

_STEPS_OWN = frozenset(signature(Session.step).parameters) - {"options"}
"""What `Session.step` takes besides options of the model: `mask_size` could ask for masks of any size."""


def read_frame(sent: SentFrame, data: memoryview, limits: Limits) -> Image:
    """Decode the frame of a message.

    Raises:
        InputError: it does not decode, is too large, or a raw one has no size.
    """
    if sent.format != "raw":
        return wire.decode_picture(data, limits.pixels)
    if sent.height is None or sent.width is None:
        raise InputError("a raw frame was sent without its height and width")
    limits.check_frame(sent.height, sent.width)
    return wire.decode_raw(data, sent.height, sent.width)


def read_step(header: Mapping[str, Any], body: memoryview, limits: Limits) -> tuple[Step, Image, Labels | None]:
    """Return (what was asked, frame, labels) of a step over the WebSocket.

    Raises:
        InputError: a field is missing or wrong, or what is behind the header has another length.
    """
    try:
        step = Step.model_validate(header)
    except ValidationError as error:
        raise InputError(first_problem(error)) from None
    behind = step.frame.bytes
    if behind + step.png != len(body):
        raise InputError(f"{len(body)} bytes are behind the header, which announces {behind} + {step.png}")
    image = read_frame(step.frame, body[:behind], limits)
    return step, image, read_labels(step, body[behind:] if step.png else None, image, limits)


def read_labels(said: Said, png: bytes | memoryview | None, image: Image, limits: Limits) -> Labels | None:
    """Return the labels that came with a frame, as a PNG or as run lengths, or None.

    Raises:
        InputError: they cannot be used, or came in both ways.
    """
    if png is not None and said.rle is not None:
        raise InputError("labels were sent as a PNG and as rle; send one of them")
    if png is not None:
        return wire.decode_labels(png, limits.pixels)
    return None if said.rle is None else wire.decode_masks(said.rle, *image.shape[:2])


def take_step(
    session: Session,
    image: Image,
    labels: Labels | None,
    said: Said,
    limits: Limits,
    options: Mapping[str, Any],
    masks: MaskFormat,
) -> Prediction:
    """Follow the objects one frame further.

    Raises:
        InputError: what is said cannot be used, or needs more objects than allowed; the session is left as it was.
    """
    if taken := sorted(_STEPS_OWN & set(said.options)):
        raise InputError(f"options {taken} are not the model's, and a server does not take them")
    present = set() if labels is None else {int(i) for i in np.unique(labels)} - {0}
    ids = {*session.ids, *present, *said.prompts}
    limits.check_objects(ids)
    if masks == "png" and ids and not (min(ids) >= 0 and max(ids) <= 65535):
        raise InputError(f"the ids {sorted(ids)} do not all fit a PNG, which holds 0 to 65535: ask for the masks as rle")
    height, width = image.shape[:2]
    prompts = {i: wire.decode_prompt(prompt.model_dump(), height, width) for i, prompt in said.prompts.items()}
    return session.step(image, labels, ids=said.ids, prompts=prompts or None, **{**options, **said.options})


def result_header(out: Prediction, number: int, masks: MaskFormat) -> dict[str, Any]:
    """Return what is said about a frame: its number, size, ids, scores, and the masks as rle if they go as such."""
    header = {
        "frame": number,
        "height": out.labels.shape[0],
        "width": out.labels.shape[1],
        "ids": list(out.ids),
        "given": sorted(out.given & set(out.ids)),
        "scores": {str(i): out.score(i) for i in out.ids},
    }
    return {**header, "masks": wire.encode_masks(out.labels, out.ids)} if masks == "rle" else header


def first_problem(error: ValidationError) -> str:
    """Say the first thing that is wrong with a request."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"the request's {place or 'fields'}: {problem['msg']}"
