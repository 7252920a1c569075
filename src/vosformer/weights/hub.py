"""Models as folders that can be handed on: `save_pretrained` and `from_pretrained`, here or on the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any

from vosformer import registry
from vosformer.errors import InputError, WeightsError
from vosformer.io.files import make_folder, write_bytes, write_json
from vosformer.options import to_json
from vosformer.protocol import VOSModel
from vosformer.weights.files import SUFFIXES, read_weights
from vosformer.weights.loading import build, overrides_of, packaged, presence_of
from vosformer.weights.saving import save_weights, variant_of

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def save_pretrained(model: VOSModel, folder: str | PathLike[str], *, variant: str | None = None) -> Path:
    """Write a model as a folder that `from_pretrained` reads, and that may be uploaded to a hub as it is.

    Args:
        model: what to save; in the number format that its weights have.
        folder: gets model.safetensors, config.json, and a README.md if it has none.
        variant: what the model is; None: what it was built as.

    Returns:
        The folder.

    Raises:
        InputError: it is not known which variant the model is.
        WeightsError: a tensor holds NaN or infinity.
        OutputError: it could not be written.
    """
    name = variant or getattr(model, "variant", "")
    if not name:
        raise InputError(f"this {type(model).__name__} was not built by a variant's name: say which one it is with variant=")
    place = make_folder(Path(folder))
    dtype = next(model.parameters()).dtype
    save_weights(model, name, place / WEIGHTS, {"presence": list(model.presence)}, dtype=dtype)
    config = {
        "library_name": "vosformer",
        "variant": name,
        "system": registry.variant(name).system,
        "overrides": to_json(model.built_with),
        "looks_closer": model.looks_closer,
        "drops_islands": model.drops_islands,
        "presence": list(model.presence),
    }
    write_json(place / CONFIG, config)
    if not (place / CARD).exists():
        write_bytes(place / CARD, _card(name).encode())
    return place


def from_pretrained(name: str | PathLike[str], *, hub: bool = False, revision: str | None = None, **overrides: Any) -> VOSModel:
    """Build a model with the weights that were saved for it, ready for inference.

    Args:
        name: a folder that `save_pretrained` wrote, a weights file of ours, packaged weights, a variant (then with fresh random
            weights), or, with `hub`, a repository OWNER/NAME on the Hugging Face Hub.
        hub: look the name up on the hub; never done unless asked for, since a folder's name may look the same.
        revision: of the repository: a branch, tag or commit.
        overrides: the variant's own options; see `vosformer.build`.

    Raises:
        InputError: there is no such folder, file, packaged weights or variant; or huggingface-hub is missing.
        WeightsError: the weights do not fit, the folder lacks them, or the hub does not hand them out.
    """
    path = download(str(name), revision) if hub else Path(name)
    if not path.exists():
        if str(name) in packaged() or not _REPOSITORY.fullmatch(str(name)):
            return build(str(name), **overrides)
        raise InputError(
            f"{name}: there is no such folder; to look this name up on the Hugging Face Hub give hub=True (packaged with vosformer: "
            f"{', '.join(packaged())})"
        )
    if path.is_file():
        return build(variant_of(read_weights(path)), path, **overrides)
    config = _config(path)
    weights = _weights_in(path)
    saved = overrides_of(config.get("overrides", {}), f"{path / CONFIG}: 'overrides'")
    model = build(config.get("variant") or variant_of(read_weights(weights)), weights, **{**saved, **overrides})
    model.looks_closer, model.drops_islands = (config.get(key) is True for key in ("looks_closer", "drops_islands"))
    if "presence" in config:  # other programs that write the weights anew lose their metadata
        model.presence = presence_of(config["presence"], f"{path / CONFIG}: 'presence'")
    return model


def download(repository: str, revision: str | None = None) -> Path:
    """Fetch a repository's model from the Hugging Face Hub, into its cache; return the folder.

    Raises:
        InputError: the package huggingface-hub is missing, or the name is none of a repository.
        WeightsError: the hub cannot be reached, or has no such model.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError
    except ImportError:
        raise InputError("the hub needs the package huggingface-hub: pip install 'vosformer[hub]'") from None
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"{repository!r} is no name on the Hugging Face Hub, expected OWNER/NAME")
    try:
        folder = Path(hf_hub_download(repository, WEIGHTS, revision=revision)).parent
        with suppress(EntryNotFoundError):  # the weights file knows its variant, too
            hf_hub_download(repository, CONFIG, revision=revision)
        return folder
    except Exception as error:  # of HTTP, of the file system, and of its own; their common base is Exception
        raise WeightsError(f"{repository} cannot be had from the Hugging Face Hub: {error}") from None


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{folder / CONFIG} cannot be read: {error}") from None
    if not isinstance(config, dict) or ("library_name" in config and config["library_name"] != "vosformer"):
        raise WeightsError(f"{folder / CONFIG} describes no model of vosformer")
    return config


def _weights_in(folder: Path) -> Path:
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    others = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(others) == 1:
        return others[0]
    raise WeightsError(f"{folder} holds {len(others)} weights files, expected {WEIGHTS}")


def _card(variant: str) -> str:
    return f"""---
library_name: vosformer
pipeline_tag: mask-generation
---
# {variant}

A model for video object segmentation, saved by vosformer.

```python
import vosformer

predictor = vosformer.VideoPredictor.from_pretrained("this folder")
session = vosformer.Session(vosformer.from_pretrained("this folder"))
```
"""
