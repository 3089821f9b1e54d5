"""Arguments of a trainer that work against each other."""

from collections.abc import Iterator
from math import sqrt
from typing import Any

from ftkit.diagnosis.case import Case
from ftkit.findings import Finding
from ftkit.models.sampler_settings import SETTINGS, off_the_softmax

_GREEDY = 0.1


def examine_settings(case: Case) -> Iterator[Finding]:
    """Every check of the arguments."""
    yield from _neftune(case)
    sampling = _sampling(case)
    if sampling:
        yield from _sampler(case, sampling)
        yield from _groups(case, sampling)


def _neftune(case: Case) -> Iterator[Finding]:
    """Noise is scaled by the length of the row, and a packed row is many texts long."""
    alpha = getattr(case.args, "neftune_noise_alpha", None)
    flat = case.packed or getattr(case.trainer, "padding_free", False)
    if not alpha or not flat or not case.rows.items:
        return
    texts = [n for _, row in case.rows.items for n in row.get("seq_lengths", ())]
    row_length = _mean([len(row["input_ids"]) for _, row in case.rows.items if "input_ids" in row])
    if not case.packed:
        texts = [len(row["input_ids"]) for _, row in case.rows.items if "input_ids" in row]
        row_length *= getattr(case.args, "per_device_train_batch_size", 1)
    if not texts:
        texts = [round(row_length)]
    weaker = sqrt(row_length / _mean(texts)) if texts else 1.0
    yield Finding(
        "neftune-packed",
        "warning",
        f"NEFTune scales its noise by the length of the whole row: {row_length:,.0f} tokens here, "
        f"where a text has {_mean(texts):,.0f}. Each token gets {weaker:.1f} times less noise than "
        f"neftune_noise_alpha={alpha:g} would give the text alone",
        f"packing=False (and padding_free=False), or neftune_noise_alpha={alpha * weaker:.3g}",
    )


def _mean(values: list[int]) -> float:
    return sum(values) / max(len(values), 1)


def _sampling(case: Case) -> dict[str, Any]:
    """What the sampler is told: the trainer's own generation config, else its arguments."""
    if case.method not in ("grpo", "rloo"):
        return {}
    config = getattr(case.trainer, "generation_config", None)
    if config is not None:
        return {k: v for k, v in config.to_dict().items() if k in (*SETTINGS, "temperature")}
    own = {k: getattr(case.args, k, None) for k in (*SETTINGS, "temperature")}
    return {**own, **(getattr(case.args, "generation_kwargs", None) or {})}


def _sampler(case: Case, sampling: dict[str, Any]) -> Iterator[Finding]:
    """The scorer's log-probabilities know the temperature and nothing else."""
    changed = off_the_softmax(sampling)
    temperature = getattr(case.args, "temperature", 1.0)
    if sampling.get("temperature") not in (None, temperature):
        changed["temperature"] = sampling["temperature"]
    if not changed:
        yield Finding("sampler-is-scorer", "ok", "sampling and scoring use one distribution")
        return
    listed = ", ".join(f"{k}={v}" for k, v in changed.items())
    yield Finding(
        "sampler-not-scorer",
        "warning",
        f"completions are sampled with {listed}, which the log-probabilities of the loss do not "
        f"know (they use temperature={temperature:g} alone): KL and ratios are biased, and the KL "
        "estimate can turn negative",
        "sample with temperature alone: top_p=1, top_k=0, no penalties, no minimal length",
    )


def _groups(case: Case, sampling: dict[str, Any]) -> Iterator[Finding]:
    cold = (sampling.get("temperature") or 1.0) < _GREEDY or sampling.get("do_sample") is False
    size = getattr(case.args, "num_generations", 0)
    if cold and size:
        yield Finding(
            "groups-alike",
            "error",
            f"with temperature={sampling.get('temperature')} the {size} completions of a prompt "
            "come out the same: their rewards do not differ, every advantage is 0, and so is the "
            "gradient",
            "sample with a temperature near 1",
        )
