"""Controls around the views, live in the notebook; the maths and the drawing stay elsewhere."""

from typing import TYPE_CHECKING

from ftkit.late import late
from ftkit.widgets.chat_inspector import ChatInspector
from ftkit.widgets.dpo_explorer import DPOExplorer
from ftkit.widgets.gae_explorer import GAEExplorer
from ftkit.widgets.grpo_explorer import GRPOExplorer
from ftkit.widgets.neftune_explorer import NEFTuneExplorer
from ftkit.widgets.packing_explorer import PackingExplorer
from ftkit.widgets.ppo_loss_explorer import PPOLossExplorer
from ftkit.widgets.ppo_stepper import PPOStepper
from ftkit.widgets.reward_loss_explorer import RewardLossExplorer

if TYPE_CHECKING:
    from ftkit.widgets.cost_planner import CostPlanner
    from ftkit.widgets.live_metrics import LiveMetrics
    from ftkit.widgets.memory_planner import MemoryPlanner

# These load transformers, so only when they are asked for.
_HOMES = {
    "CostPlanner": "cost_planner",
    "LiveMetrics": "live_metrics",
    "MemoryPlanner": "memory_planner",
}

__all__ = [
    "ChatInspector",
    "CostPlanner",
    "DPOExplorer",
    "GAEExplorer",
    "GRPOExplorer",
    "LiveMetrics",
    "MemoryPlanner",
    "NEFTuneExplorer",
    "PPOLossExplorer",
    "PPOStepper",
    "PackingExplorer",
    "RewardLossExplorer",
]

late(__name__, _HOMES)
