"""`ftkit.load`: a name becomes a model, its tokenizer and a card that says what they are."""

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    set_seed,
)
from transformers import PreTrainedTokenizerBase as Tokenizer

from ftkit.errors import ModelSourceError, SettingsError
from ftkit.fetching.cache import Progress, silent
from ftkit.models.convert import repair_tokenizer
from ftkit.models.hardware import compute_dtype as dtype_for
from ftkit.models.hardware import named_dtype, pick_device
from ftkit.models.memory import leave_file, memory_mb
from ftkit.models.padding import Pad, separate_pad, token_ref
from ftkit.models.quantize import (
    Quantization,
    keep_weights_trainable,
    method_of,
    quantization_config,
)
from ftkit.models.quiet import no_progress_bars
from ftkit.models.sources import Source, resolve
from ftkit.records.model_card import ModelCard
from ftkit.showing import Showable

DEFAULT = "smollm2-135m"


@dataclass(frozen=True, slots=True, repr=False)
class Loaded(Showable):
    """A model in eval mode, its tokenizer, and its card; shows itself as the card."""

    model: PreTrainedModel
    tokenizer: Tokenizer
    card: ModelCard

    def to_html(self) -> str:
        """Return the card's HTML."""
        return self.card.to_html()

    def __repr__(self) -> str:
        return str(self.card)

    __str__ = __repr__


def load(
    name: str = DEFAULT,
    *,
    quantization: Quantization | None = "nf4",
    device: str = "auto",
    compute_dtype: str | None = None,
    pad: Pad = "distinct",
    seed: int | None = 0,
    revision: str | None = None,
) -> Loaded:
    """Load a causal language model with its tokenizer.

    Args:
        name: ``"smollm2-135m"``, a folder written by `save_pretrained`, or a hub id.
        quantization: ``"nf4"`` (4 bits), ``"int8"``, or None for plain weights. A checkpoint
            that comes quantized is loaded as it is.
        device: ``"auto"`` (first CUDA GPU, else CPU), or a torch device.
        compute_dtype: ``"float32"``, ``"float16"`` or ``"bfloat16"``; None chooses by hardware.
        pad: ``"distinct"`` replaces a pad token that also ends answers by an unused one;
            ``"shipped"`` keeps the tokenizer as it came, trap included.
        seed: Seeds Python, NumPy and torch before loading; None leaves them alone.
        revision: Branch, tag or commit of a hub id.

    Returns:
        Model (in eval mode), tokenizer and card.

    Raises:
        ModelSourceError: the weights cannot be found, fetched, verified, stored or read.
        SettingsError: an unknown option, or one that this machine cannot serve.
    """
    chosen = pick_device(device)
    dtype = named_dtype(compute_dtype) if compute_dtype else dtype_for(chosen)
    recipe = quantization_config(quantization, chosen, dtype)
    source = resolve(name, revision=revision, progress=_announcer(name))
    if seed is not None:
        set_seed(seed)
    config = _read_config(source.folder)
    tokenizer, note = _read_tokenizer(source, config, pad)
    _align(config, tokenizer)
    if getattr(config, "quantization_config", None):
        recipe = None
    model = _read_model(source.folder, config, recipe, chosen, dtype)
    return Loaded(model, tokenizer, _card(name, source, model, tokenizer, dtype, note))


def load_tokenizer(
    name: str = DEFAULT, *, pad: Pad = "distinct", revision: str | None = None
) -> Tokenizer:
    """Load only the tokenizer that `load` would give; no weights are read.

    Args:
        name: As for `load`.
        pad: As for `load`.
        revision: As for `load`.

    Raises:
        ModelSourceError: it cannot be found, fetched, verified or read.
    """
    source = resolve(name, revision=revision, weights=False, progress=_announcer(name))
    return _read_tokenizer(source, _read_config(source.folder), pad)[0]


def fetch(
    name: str = DEFAULT,
    *,
    revision: str | None = None,
    progress: Progress = silent,
    force: bool = False,
) -> Path:
    """Download and convert ahead of `load`, and return the checkpoint's folder.

    Args:
        name: As for `load`.
        revision: As for `load`.
        progress: Called as ``progress(step, fraction)`` with the steps ``"download"``,
            ``"verify"`` and ``"convert"``; each ends with fraction 1.
        force: Build the embedded model anew, e.g. after `load` found it damaged.

    Raises:
        ModelSourceError: as for `load`; nothing half-written is left behind.
    """
    return resolve(name, revision=revision, progress=progress, force=force).folder


def _announcer(name: str) -> Progress:
    """Return a hook that says once on stderr which slow step of a first load begins."""
    said: set[str] = set()

    def announce(step: str, fraction: float) -> None:
        if step not in said:
            said.add(step)
            print(f"ftkit: first use of {name}: {step} …", file=sys.stderr, flush=True)

    return announce


def _read_config(folder: Path) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(folder, "config", error) from error


def _read_tokenizer(source: Source, config: PretrainedConfig, pad: Pad) -> tuple[Tokenizer, str]:
    if pad not in ("distinct", "shipped"):
        raise SettingsError(f"pad={pad!r} is unknown; use 'distinct' or 'shipped'")
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            source.folder, local_files_only=True, trust_remote_code=False
        )
    except (OSError, ValueError, KeyError) as error:
        raise _unreadable(source.folder, "tokenizer", error) from error
    if source.embedded is not None:
        repair_tokenizer(tokenizer, source.embedded)
    text_config = config.get_text_config()
    stops = _ids(text_config.eos_token_id)
    note = separate_pad(tokenizer, text_config.vocab_size, stops, change=pad == "distinct")
    return tokenizer, note


def _ids(value: int | list[int] | None) -> set[int]:
    return set() if value is None else {value} if isinstance(value, int) else set(value)


def _align(config: PretrainedConfig, tokenizer: Tokenizer) -> None:
    """Set the pad id before loading: the embedding never trains the row of that id."""
    config.pad_token_id = tokenizer.pad_token_id
    config.get_text_config().pad_token_id = tokenizer.pad_token_id


def _read_model(
    folder: Path,
    config: PretrainedConfig,
    recipe: object | None,
    device: torch.device,
    dtype: torch.dtype,
) -> PreTrainedModel:
    try:
        with no_progress_bars():
            model = AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                quantization_config=recipe,
                dtype=dtype,
                device_map={"": device},
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise _unreadable(folder, "weights", error) from error
    keep_weights_trainable(model)
    leave_file(model)
    model.generation_config.pad_token_id = config.get_text_config().pad_token_id
    return model


def _unreadable(folder: Path, what: str, error: Exception) -> ModelSourceError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if "trust_remote_code" in str(error):
        return ModelSourceError(
            f"the model in {folder} brings its own Python code, which ftkit never runs. Use a "
            "model whose architecture transformers knows"
        )
    return ModelSourceError(
        f"the {what} in {folder} cannot be read ({lines[0]}). The folder may be incomplete or "
        "damaged, or not hold a causal language model: fetch it again, or use another"
    )


def _card(
    name: str,
    source: Source,
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    dtype: torch.dtype,
    note: str,
) -> ModelCard:
    return ModelCard(
        name=name,
        source=source.kind,
        location=source.location,
        licence=source.licence,
        sha256=source.sha256,
        parameters=model.num_parameters(),
        quantization=method_of(model),
        compute_dtype=str(dtype).removeprefix("torch."),
        device=str(model.device),
        memory_mb=memory_mb(model),
        pad=token_ref(tokenizer, "pad"),
        eos=token_ref(tokenizer, "eos"),
        bos=token_ref(tokenizer, "bos"),
        notes=(note,) if note else (),
    )
