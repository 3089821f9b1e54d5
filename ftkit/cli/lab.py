"""JupyterLab on the course's notebooks."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from ftkit.threads import wait_briefly

COPY = "ftkit-notebooks"


def workspace(source: Path, here: Path) -> Path:
    """Return a folder in which the notebooks of `source` can be edited.

    A clone's own ``notebooks`` folder is used as it is. The ones packaged in a wheel are copied to
    ``ftkit-notebooks`` in `here`; files that are already there keep the reader's changes.
    """
    if source.name == "notebooks":
        return source
    target = here / COPY
    target.mkdir(exist_ok=True)
    for path in sorted(source.glob("*.ipynb")):
        if not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)
    return target


def open_lab(folder: Path, port: int, browser: bool) -> int:
    """Run JupyterLab on `folder` until it ends and return its exit status.

    Ctrl-C goes to JupyterLab, which asks whether to stop.
    """
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    command += [f"--port={port}", *([] if browser else ["--no-browser"])]
    process = subprocess.Popen(command, env=wait_briefly(dict(os.environ)))  # noqa: S603
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)
