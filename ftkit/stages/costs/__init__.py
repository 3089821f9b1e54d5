"""What a run needs, before it runs: memory by part, operations, hours, money.

    memory   plan → activations → memory (by moment) → fit (the smallest change); measure checks it
    money    flops → hours → bills → money, with ranges; published checks it

Nothing here loads a model, except `measure`, which takes one that is loaded.
"""

from ftkit.models.known_shapes import KNOWN
from ftkit.models.shape import ModelShape
from ftkit.stages.costs.bills import Compute, example_bill, gpu_term
from ftkit.stages.costs.fit import CARDS, fit
from ftkit.stages.costs.flops import (
    HARDWARE,
    Hardware,
    Work,
    decode_seconds,
    forward_flops,
    gpu_hours,
    implied_mfu,
    rule_of_thumb,
    stage_flops,
    training_flops,
)
from ftkit.stages.costs.measure import Measured, measure, peak_of
from ftkit.stages.costs.memory import NF4_BITS, estimate, weight_bytes
from ftkit.stages.costs.money import Bill, Factor, simulate, term_value
from ftkit.stages.costs.plan import MemoryPlan
from ftkit.stages.costs.published import LLAMA_31, check_published
from ftkit.stages.costs.ranges import Range

__all__ = [
    "CARDS",
    "HARDWARE",
    "KNOWN",
    "LLAMA_31",
    "NF4_BITS",
    "Bill",
    "Compute",
    "Factor",
    "Hardware",
    "Measured",
    "MemoryPlan",
    "ModelShape",
    "Range",
    "Work",
    "check_published",
    "decode_seconds",
    "estimate",
    "example_bill",
    "fit",
    "forward_flops",
    "gpu_hours",
    "gpu_term",
    "implied_mfu",
    "measure",
    "peak_of",
    "rule_of_thumb",
    "simulate",
    "stage_flops",
    "term_value",
    "training_flops",
    "weight_bytes",
]
