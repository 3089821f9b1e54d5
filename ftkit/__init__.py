"""ftkit: the X-ray for LLM fine-tuning in Jupyter.

`import ftkit` is fast: torch and transformers load on first use.
"""

from typing import TYPE_CHECKING

from ftkit.late import late

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

late(__name__, _NAMES)
