"""What a run leaves behind: typed, saved as safetensors and JSON, loadable without a model."""

from ftkit.records.costs import (
    CardFit,
    Change,
    CostEstimate,
    CostTerm,
    MemoryEstimate,
    Moment,
    Swing,
)
from ftkit.records.dpo_pair import DPOPair
from ftkit.records.forgetting import ForgettingResult, ForgettingRun, Scores
from ftkit.records.group_trace import Answer, Group, GroupStep, GroupTrace
from ftkit.records.history import RunHistory
from ftkit.records.lines import Lines
from ftkit.records.metric_guide import METRICS, Metric, explain
from ftkit.records.noise import NoiseMap, NoisePass, NoiseProof, NoiseStep
from ftkit.records.packing import CrossingEffect, Packing, PackingPoint
from ftkit.records.ppo_trace import PPOIteration, PPOTrace, PPOTraceConfig, PPOUpdate, Start
from ftkit.records.scored_pair import ScoredPair
from ftkit.records.table import Table

__all__ = [
    "METRICS",
    "Answer",
    "CardFit",
    "Change",
    "CostEstimate",
    "CostTerm",
    "CrossingEffect",
    "DPOPair",
    "ForgettingResult",
    "ForgettingRun",
    "Group",
    "GroupStep",
    "GroupTrace",
    "Lines",
    "MemoryEstimate",
    "Metric",
    "Moment",
    "NoiseMap",
    "NoisePass",
    "NoiseProof",
    "NoiseStep",
    "PPOIteration",
    "PPOTrace",
    "PPOTraceConfig",
    "PPOUpdate",
    "Packing",
    "PackingPoint",
    "RunHistory",
    "ScoredPair",
    "Scores",
    "Start",
    "Swing",
    "Table",
    "explain",
]
