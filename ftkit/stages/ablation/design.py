"""Which settings with which seeds: everything about a call that can be wrong before it runs."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import isfinite
from typing import Literal, get_args

from ftkit.errors import SettingsError
from ftkit.records.ablation import Setting, Value
from ftkit.stages.naming import name_of

Design = Literal["full", "one-factor"]
Grid = Mapping[str, Sequence[Value]]
Cell = tuple[frozenset[tuple[str, Value]], int]
"""What tells trials apart: the setting and the seed."""


@dataclass(frozen=True)
class Plan:
    """A checked call.

    Attributes:
        factors: Factor to its values, in order.
        baseline: What the others are compared with.
        settings: All that run, each once.
        seeds: Of each setting.
    """

    factors: Mapping[str, tuple[Value, ...]]
    baseline: Setting
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]

    @property
    def pairs(self) -> list[tuple[Setting, int]]:
        """Seed by seed, in each all settings: after the first seed there is a whole comparison."""
        return [(setting, seed) for seed in self.seeds for setting in self.settings]


def planned(
    grid: Grid, *, seeds: int | Sequence[int], design: Design, baseline: Setting | None
) -> Plan:
    """Check the arguments of `ftkit.ablate` and enumerate the settings.

    Raises:
        SettingsError: names the argument, what is wrong with it, and what to give.
    """
    factors = _factors(grid)
    base = _baseline(factors, baseline)
    if design not in get_args(Design):
        raise SettingsError(f"design={design!r}: use one of {', '.join(get_args(Design))}")
    settings = _full(factors) if design == "full" else _one_factor(factors, base)
    return Plan(factors, base, tuple(settings), _seeds(seeds))


def cell(setting: Setting, seed: int) -> Cell:
    """Return what tells this trial from others."""
    return frozenset(setting.items()), seed


def check_run(run: object, plan: Plan) -> None:
    """Refuse a `run` that cannot be called with the factors and ``seed``.

    Raises:
        SettingsError: it is not callable, or its signature does not take them.
    """
    if not callable(run):
        raise SettingsError(f"run={run!r} is not callable: give a function run(**setting, seed=…)")
    try:
        signature = inspect.signature(run)
    except (ValueError, TypeError):
        return  # some built-ins don't tell
    try:
        signature.bind(**plan.baseline, seed=0)
    except TypeError as error:
        wanted = ", ".join((*plan.factors, "seed"))
        raise SettingsError(
            f"{name_of(run)}{signature} cannot be called with the factors and the seed "
            f"({error}): it must take {wanted} by name, and nothing else without a default"
        ) from error


def _full(factors: Mapping[str, tuple[Value, ...]]) -> list[Setting]:
    return [dict(zip(factors, values, strict=True)) for values in product(*factors.values())]


def _one_factor(factors: Mapping[str, tuple[Value, ...]], base: Setting) -> list[Setting]:
    """The baseline, then all settings that differ from it in one factor."""
    others = [(name, value) for name in factors for value in factors[name] if value != base[name]]
    return [base, *({**base, name: value} for name, value in others)]


def _factors(grid: Grid) -> dict[str, tuple[Value, ...]]:
    if not isinstance(grid, Mapping) or not grid:
        raise SettingsError(
            f"grid={grid!r}: give a dict of factor to values, {{'lora_r': [4, 16]}}"
        )
    return {_name(name): _values(name, values) for name, values in grid.items()}


def _name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise SettingsError(f"grid: the factor {name!r} must be named by a string")
    if name == "seed":
        raise SettingsError("grid: 'seed' cannot be a factor; give seeds=… instead")
    if name in ("state", "seconds", "error"):
        raise SettingsError(f"grid: {name!r} names a column of the result; call the factor another")
    return name


def _values(name: str, values: Sequence[Value]) -> tuple[Value, ...]:
    if isinstance(values, str | bytes | Mapping) or not hasattr(values, "__iter__"):
        raise SettingsError(f"grid: {name}={values!r} must be a list of values, e.g. [{values!r}]")
    found = [_value(name, value) for value in values]
    if not found:
        raise SettingsError(f"grid: {name} has no values")
    twice = [value for i, value in enumerate(found) if value in found[:i]]
    if twice:
        raise SettingsError(
            f"grid: {name} has the value {twice[0]!r} twice (1, 1.0 and True equal)"
        )
    return tuple(found)


def _value(name: str, value: object) -> Value:
    if value is not None and not isinstance(value, str | int | float):
        raise SettingsError(
            f"grid: {name} has the value {value!r} of type {type(value).__name__}; values are "
            "kept as JSON and must be str, int, float, bool or None: give a name or a number, and "
            "let run look up what it stands for"
        )
    if isinstance(value, float) and not isfinite(value):
        raise SettingsError(f"grid: {name} has the value {value}; values must be finite")
    return value


def _baseline(factors: Mapping[str, tuple[Value, ...]], baseline: Setting | None) -> Setting:
    if baseline is None:
        return {name: values[0] for name, values in factors.items()}
    if not isinstance(baseline, Mapping) or set(baseline) != set(factors):
        raise SettingsError(
            f"baseline={baseline!r} must give a value to each factor of the grid, and to nothing "
            f"else: {', '.join(factors)}"
        )
    for name, values in factors.items():
        if baseline[name] not in values:
            raise SettingsError(
                f"baseline: {name}={baseline[name]!r} is not in the grid: {list(values)}"
            )
    return {name: next(v for v in factors[name] if v == baseline[name]) for name in factors}


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        if seeds < 1:
            raise SettingsError(f"seeds={seeds}: give the number of seeds, 1 or more, or a list")
        return tuple(range(seeds))
    found = tuple(seeds) if hasattr(seeds, "__iter__") and not isinstance(seeds, str) else ()
    whole = all(isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in found)
    if not found or not whole or len(set(found)) < len(found):
        raise SettingsError(
            f"seeds={seeds!r}: give a number of seeds, or a list of different whole numbers from 0"
        )
    return found
