"""What a run leaves behind: typed, saved as safetensors and JSON, loadable without a model."""

from ftkit.records.history import RunHistory
from ftkit.records.lines import Lines
from ftkit.records.metric_guide import METRICS, Metric, explain
from ftkit.records.ppo_trace import PPOIteration, PPOTrace, PPOTraceConfig, PPOUpdate, Start
from ftkit.records.scored_pair import ScoredPair
from ftkit.records.table import Table

__all__ = [
    "METRICS",
    "Lines",
    "Metric",
    "PPOIteration",
    "PPOTrace",
    "PPOTraceConfig",
    "PPOUpdate",
    "RunHistory",
    "ScoredPair",
    "Start",
    "Table",
    "explain",
]
