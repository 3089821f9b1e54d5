"""A check against the world: the GPU-hours that Meta published for Llama 3.1."""

from dataclasses import dataclass

from ftkit.models.shape import ModelShape
from ftkit.records.table import Table
from ftkit.stages.costs.flops import HARDWARE, gpu_hours, implied_mfu, rule_of_thumb


@dataclass(frozen=True, slots=True)
class Published:
    """What a model's authors say it took.

    Attributes:
        model: A known name of `ModelShape.of`.
        tokens: Pre-training tokens.
        hours: H100 hours.
        source: Where they say so.
    """

    model: str
    tokens: float
    hours: float
    source: str


_CARD = "Llama 3.1 model card: 15T+ tokens"
LLAMA_31: tuple[Published, ...] = (
    Published("llama-3.1-8b", 15e12, 1.46e6, _CARD),
    Published("llama-3.1-70b", 15e12, 7.0e6, _CARD),
    Published(
        "llama-3.1-405b", 15.6e12, 30.84e6, "model card; 15.6T tokens: arXiv 2407.21783, table 3"
    ),
)


def check_published(mfu: float = 0.4) -> Table:
    """Return 6ND at one utilization beside the published hours, and the utilization they imply.

    Args:
        mfu: The share of the H100's peak to predict with.

    Raises:
        SettingsError: an impossible share.
    """
    card = HARDWARE["H100 SXM"]
    rows = []
    for entry in LLAMA_31:
        flops = rule_of_thumb(ModelShape.of(entry.model).parameters, entry.tokens)
        hours = gpu_hours(flops, card, mfu)
        share = implied_mfu(flops, card, entry.hours)
        rows.append(
            (entry.model, f"{hours / 1e6:.2f} M", f"{entry.hours / 1e6:.2f} M",
             entry.hours / hours, f"{share:.1%}")
        )  # fmt: skip
    columns = ("model", f"6ND at {mfu:.0%}", "published", "published / 6ND", "implied utilization")
    return Table(
        "H100 hours of Llama 3.1: rule of thumb against what it took",
        columns,
        rows,
        "One utilization does not fit all sizes: the published hours hold more than the arithmetic "
        "of one run. Put in your own measured share, and expect small models to reach less.",
    )
