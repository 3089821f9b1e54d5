"""Controls around the views, live in the notebook; the maths and the drawing stay elsewhere."""

from typing import TYPE_CHECKING, Any

from ftkit.widgets.chat_inspector import ChatInspector
from ftkit.widgets.ppo_loss_explorer import PPOLossExplorer
from ftkit.widgets.ppo_stepper import PPOStepper
from ftkit.widgets.reward_loss_explorer import RewardLossExplorer

if TYPE_CHECKING:
    from ftkit.widgets.live_metrics import LiveMetrics

__all__ = ["ChatInspector", "LiveMetrics", "PPOLossExplorer", "PPOStepper", "RewardLossExplorer"]


def __getattr__(name: str) -> Any:
    if name != "LiveMetrics":
        raise AttributeError(f"module 'ftkit.widgets' has no attribute {name!r}")
    from ftkit.widgets.live_metrics import LiveMetrics  # loads transformers

    return LiveMetrics
