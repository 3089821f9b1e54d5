"""What a run leaves behind: typed, saved as safetensors and JSON, loadable without a model."""

from ftkit.records.ablation import AblationResult, AblationTrial, Failure
from ftkit.records.ablation_progress import AblationProgress
from ftkit.records.comparison import ComparisonResult
from ftkit.records.comparison_run import ComparisonPoint, ComparisonRun
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
from ftkit.records.role_map import Part, RoleMap
from ftkit.records.scored_pair import ScoredPair
from ftkit.records.syllabus import Course, Glossary, course, glossary
from ftkit.records.table import Table

__all__ = [
    "METRICS",
    "AblationProgress",
    "AblationResult",
    "AblationTrial",
    "Answer",
    "CardFit",
    "Change",
    "ComparisonPoint",
    "ComparisonResult",
    "ComparisonRun",
    "CostEstimate",
    "CostTerm",
    "Course",
    "CrossingEffect",
    "DPOPair",
    "Failure",
    "ForgettingResult",
    "ForgettingRun",
    "Glossary",
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
    "Part",
    "RoleMap",
    "RunHistory",
    "ScoredPair",
    "Scores",
    "Start",
    "Swing",
    "Table",
    "course",
    "explain",
    "glossary",
]
