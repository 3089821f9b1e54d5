"""Models from the hub: its local cache first, the network only for what is not there."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from ftkit.errors import ModelSourceError, SourceError
from ftkit.fetching.cache import disk_errors
from ftkit.models.checkpoint import weight_files

_TEXTS = ["*.json", "*.jinja", "*.txt", "*.model", "README.md"]
_WEIGHTS = ["*.safetensors"]
_TIMEOUT_S = 5.0


def cached_snapshot(repo: str, revision: str | None, *, weights: bool) -> Path | None:
    """Return the complete snapshot of `repo` in the local hub cache, or None; no network.

    Raises:
        ModelSourceError: `repo` is not a valid hub id.
    """
    try:
        folder = _snapshot(repo, revision, weights=weights, offline=True)
        _require_complete(folder, weights=weights)
    except HFValidationError as error:
        raise ModelSourceError(f"{repo!r} is neither a folder nor a hub id: {error}") from error
    except (LocalEntryNotFoundError, ModelSourceError):
        return None
    return folder


def download_snapshot(repo: str, revision: str | None, *, weights: bool) -> Path:
    """Fetch `repo` (safetensors and text files only) into the hub cache and return its folder.

    Raises:
        ModelSourceError: the hub does not answer, refuses, or has no safetensors there.
    """
    try:
        with disk_errors(Path(f"the hub cache for {repo}"), "HF_HOME"):
            folder = _snapshot(repo, revision, weights=weights, offline=False)
    except SourceError as error:
        raise ModelSourceError(str(error)) from error
    except Exception as error:  # the hub client's HTTP library is its own business
        raise _explained(repo, revision, error) from error
    try:
        _require_complete(folder, weights=weights)
    except ModelSourceError as error:
        raise ModelSourceError(
            f"{repo} is incomplete ({error}). Either the network is down and only a part is in "
            "the local hub cache, or the repository holds pickle files only, which ftkit does "
            "not read: use a model or revision with safetensors"
        ) from error
    return folder


def _snapshot(repo: str, revision: str | None, *, weights: bool, offline: bool) -> Path:
    path = snapshot_download(
        repo,
        revision=revision,
        allow_patterns=[*_TEXTS, *_WEIGHTS] if weights else _TEXTS,
        ignore_patterns=["*/*"],
        etag_timeout=_TIMEOUT_S,
        local_files_only=offline,
    )
    return Path(path)


def _require_complete(folder: Path, *, weights: bool) -> None:
    if weights:
        weight_files(folder)
    elif not any(folder.glob("tokenizer*")):
        raise ModelSourceError(f"{folder} holds no tokenizer")


def _explained(repo: str, revision: str | None, error: Exception) -> ModelSourceError:
    if isinstance(error, GatedRepoError):
        text = f"{repo} is gated. Accept its licence on its page, then run `hf auth login`"
    elif isinstance(error, RepositoryNotFoundError):
        text = f"the hub has no model {repo}, or it is private. Check the spelling, or log in"
    elif isinstance(error, RevisionNotFoundError):
        text = f"{repo} has no revision {revision!r}. Use a branch, tag or commit of that model"
    else:
        text = (
            f"{repo} is not in the local hub cache and could not be fetched "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). Check the network (or "
            "HF_ENDPOINT, HF_HUB_OFFLINE), or give a local folder"
        )
    return ModelSourceError(text)
