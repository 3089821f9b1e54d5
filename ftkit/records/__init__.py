"""What a run leaves behind: typed, saved as safetensors and JSON, loadable without a model."""

from ftkit.records.history import RunHistory
from ftkit.records.metric_guide import METRICS, Metric, explain
from ftkit.records.table import Table

__all__ = ["METRICS", "Metric", "RunHistory", "Table", "explain"]
