"""`vosformer annotate`."""

from __future__ import annotations

import webbrowser
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from vosformer.annotate.exchange import import_masks
from vosformer.annotate.project import Project
from vosformer.annotate.project_file import read_about
from vosformer.annotate.workspace import Workspace
from vosformer.cli.common import prepare_machine
from vosformer.cli.session_options import SessionOptions
from vosformer.cli.source_options import SourceOptions
from vosformer.cli.terminal import messages, show_notes, show_warning
from vosformer.errors import InputError
from vosformer.web.listen import LOCAL, host_names, listen


def annotate(
    video: Annotated[str, tyro.conf.Positional],
    /,
    out: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None,
    masks: Path | None = None,
    mask_frame: int = 0,
    given: bool = False,
    port: int = 0,
    host: str = "127.0.0.1",
    browser: bool = True,
    run: Annotated[SessionOptions, tyro.conf.arg(name="")] = SessionOptions(),
    reading: Annotated[SourceOptions, tyro.conf.arg(name="")] = SourceOptions(),
) -> None:
    """Mark objects, follow them, correct, review and export, on a page in your browser. Nothing leaves this machine.

    Args:
        video: video file, folder of images, or the folder of a project that exists.
        out: folder of the project; default: the video's name with "-project" behind it, in this folder.
        masks: masks to begin with: a label image, a folder of masks named like their frames (e.g. out/masks of `track`), or an
            annotation file (see `vosformer formats`).
        mask_frame: the frame that a single mask belongs to; the first is 0.
        given: the masks of `--masks` count as given by you, each frame; else those of a folder as tracked.
        port: of the page; 0 takes a free one.
        host: address to listen on. Another one than 127.0.0.1 lets others in your network in, if they have the address.
        browser: open the page at once.
        run: how the model runs.
        reading: how the frames are read; a project that is opened again by its folder reads them as before.
    """
    try:
        import uvicorn

        from vosformer.annotate.server import create_app
    except ImportError as error:
        raise InputError(f"the annotator needs more packages ({error.name}): pip install 'vosformer[annotate]'") from None
    run.prepare()
    folder, video, reading = _places(video, out, reading)
    with reading.open(video) as source:
        show_notes(source.notes)
        project = Project(folder, source, video, asdict(reading))
        workspace = Workspace(project, run.session, run.read_options, partial(prepare_machine, run.threads))
        if project.adopted:
            show_notes([f"masks of {len(project.adopted)} frames in {folder / 'given'} were taken over"])
        if masks is not None:
            count, notes = import_masks(project, masks, given or masks.is_file(), mask_frame)
            messages().print(f"masks of {count} frames taken over from {masks}")
            show_notes(notes)
        listener = listen(host, port)
        port = listener.getsockname()[1]
        shown, names = host_names(host)
        hosts = {f"{name}:{port}" for name in names}
        _, app, token = create_app(workspace, hosts)
        address = f"http://{shown}:{port}/{token}/"
        project.folder_lock.say(address)
        if host not in LOCAL:
            show_warning("everyone in your network who has this address can see and change the project")
        messages().print(address, style="bold")
        messages().print(f"the project is {folder}; everything is saved at once; Ctrl-C ends")
        if browser:
            webbrowser.open(address)
        config = uvicorn.Config(app, log_level="warning", ws="websockets-sansio", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[listener])


def _places(video: str, out: Path | None, reading: SourceOptions) -> tuple[Path, str, SourceOptions]:
    """Return the project's folder, the video it is of, and how that is read."""
    path = Path(video)
    if (path / "project.json").is_file():
        if out is not None and out.resolve() != path.resolve():
            raise InputError(f"{path} is a project already; leave -o away, or give its video")
        about = read_about(path)["video"]
        found = str(about["path"])
        reading = reading if reading != SourceOptions() else SourceOptions(**about.get("reading", {}))
        if not Path(found).exists():
            raise InputError(f"{path} is a project of {found}, which is not there: vosformer annotate NEW_PLACE -o {path}")
        return path, found, reading
    return out or Path(f"{path.resolve().stem}-project"), video, reading
