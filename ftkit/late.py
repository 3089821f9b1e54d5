"""Packages whose names load when they are first used: torch, TRL and datasets take seconds.

They take memory, too: a PPO run has no need of TRL, datasets, pandas and pyarrow, 110 MB together.
"""

import importlib
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    _homes: Mapping[str, str]

    def __getattr__(self, name: str) -> Any:
        if name in self._homes:
            value = getattr(importlib.import_module(self._homes[name]), name)
        else:
            value = self._submodule(name)
        self.__dict__[name] = value
        return value

    def _submodule(self, name: str) -> ModuleType:
        full = f"{self.__name__}.{name}"
        if name.startswith("_") or find_spec(full) is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        return importlib.import_module(full)

    def __setattr__(self, name: str, value: Any) -> None:
        # The import system puts every submodule here; a function of the same name comes first.
        if name not in self._homes or not isinstance(value, ModuleType):
            super().__setattr__(name, value)

    def __reduce__(self) -> Any:  # dill and cloudpickle know plain modules only
        return importlib.import_module, (self.__name__,)

    def __dir__(self) -> list[str]:
        return sorted(self.__all__)


def late(package: str, homes: Mapping[str, str]) -> None:
    """Let `package` import names at their first use.

    Args:
        package: Its ``__name__``; it has an ``__all__``. Its submodules load late in any case.
        homes: Name → module, in full or within the package.
    """
    module = sys.modules[package]
    module.__dict__["_homes"] = {
        name: home if home.startswith("ftkit.") else f"{package}.{home}"
        for name, home in homes.items()
    }
    module.__class__ = _Package
