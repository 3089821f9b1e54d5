"""A source package that pip accepts, made on the spot."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

from ftkit.fetching.package import PinnedPackage


def write_sdist(
    folder: Path, requirement: str, files: Mapping[str, str], link: str | None = None
) -> PinnedPackage:
    """Pack `files` and return the pin; `link` adds a symbolic link that leads nowhere."""
    name, version = requirement.split("==")
    top = f"{name.replace('-', '_')}-{version}"
    info = f"Metadata-Version: 1.0\nName: {name}\nVersion: {version}\n"
    archive = folder / f"{top}.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path, text in {"PKG-INFO": info, "setup.py": "", **files}.items():
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
        if link:
            entry = tarfile.TarInfo(f"{top}/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "gone.txt"
            tar.addfile(entry)
    content = archive.read_bytes()
    return PinnedPackage(requirement, hashlib.sha256(content).hexdigest(), len(content), sdist=True)


def only_index(monkeypatch, folder: Path) -> None:
    """Have pip look into `folder` and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
