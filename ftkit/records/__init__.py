"""What a run leaves behind: typed, saved as safetensors and JSON, loadable without a model."""

from ftkit.records.history import RunHistory
from ftkit.records.metric_guide import METRICS, Metric, explain
from ftkit.records.ppo_trace import PPOIteration, PPOTrace, PPOTraceConfig, PPOUpdate, Start
from ftkit.records.table import Table

__all__ = [
    "METRICS",
    "Metric",
    "PPOIteration",
    "PPOTrace",
    "PPOTraceConfig",
    "PPOUpdate",
    "RunHistory",
    "Start",
    "Table",
    "explain",
]
