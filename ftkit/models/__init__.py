"""Where weights come from: found, fetched, verified, quantized, and put on the right device.

Also the roles that share one base: adapters and heads for policy, reference and reward model.

Left out on purpose: training, data, and anything that runs code from a model
repository. torch and transformers are imported when a name of this room is first used.
"""

from typing import TYPE_CHECKING

from ftkit.fetching.cache import cache_dir
from ftkit.late import late
from ftkit.models.quiet import hush_bitsandbytes

_HOMES = {
    "Completions": "generation",
    "Loaded": "loading",
    "LoraAdapter": "lora",
    "MergeErrors": "merge",
    "Roles": "roles",
    "TokenOutputs": "roles",
    "compute_dtype": "hardware",
    "fetch": "loading",
    "load": "loading",
    "load_tokenizer": "loading",
    "memory_mb": "memory",
    "merge_errors": "merge",
    "read_adapter": "lora",
    "role_map": "measured_roles",
    "score_model": "classifier",
    "strip_adapters": "lora",
}

__all__ = [
    "Completions",
    "Loaded",
    "LoraAdapter",
    "MergeErrors",
    "Roles",
    "TokenOutputs",
    "cache_dir",
    "compute_dtype",
    "fetch",
    "load",
    "load_tokenizer",
    "memory_mb",
    "merge_errors",
    "read_adapter",
    "role_map",
    "score_model",
    "strip_adapters",
]

if TYPE_CHECKING:
    from ftkit.models.classifier import score_model
    from ftkit.models.generation import Completions
    from ftkit.models.hardware import compute_dtype
    from ftkit.models.loading import Loaded, fetch, load, load_tokenizer
    from ftkit.models.lora import LoraAdapter, read_adapter, strip_adapters
    from ftkit.models.measured_roles import role_map
    from ftkit.models.memory import memory_mb
    from ftkit.models.merge import MergeErrors, merge_errors
    from ftkit.models.roles import Roles, TokenOutputs

hush_bitsandbytes()  # transformers imports bitsandbytes, so this comes before it
late(__name__, _HOMES)
