"""ftkit: the X-ray for LLM fine-tuning in Jupyter.

`import ftkit` is fast: torch and transformers load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ROOMS = ("algos", "chat", "data", "diagnosis", "models", "records", "stages", "views", "widgets")
_NAMES = {
    "ablate": "ftkit.stages.ablation",
    "display": "ftkit.showing",
    "doctor": "ftkit.diagnosis",
    "load": "ftkit.models",
    "settings": "ftkit.profiles",
    "LiveMetrics": "ftkit.widgets",
    "PPOConfig": "ftkit.stages.ppo",
    "PPOTrace": "ftkit.records",
    "PPOTrainer": "ftkit.stages.ppo",
}

__all__ = ["__version__", *_ROOMS, *_NAMES]

if TYPE_CHECKING:
    from ftkit.diagnosis import doctor as doctor
    from ftkit.models import load as load
    from ftkit.profiles import settings as settings
    from ftkit.records import PPOTrace as PPOTrace
    from ftkit.showing import display as display
    from ftkit.stages.ablation import ablate as ablate
    from ftkit.stages.ppo import PPOConfig as PPOConfig
    from ftkit.stages.ppo import PPOTrainer as PPOTrainer
    from ftkit.widgets import LiveMetrics as LiveMetrics


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        value = getattr(importlib.import_module(_NAMES[name]), name)
    elif name in _ROOMS:
        value = importlib.import_module(f"ftkit.{name}")
    else:
        raise AttributeError(f"module 'ftkit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
