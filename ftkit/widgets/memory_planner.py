"""`MemoryPlanner`: choose model, stage and sizes, and see what fits on which card.

The kernel computes with `ftkit.stages.costs` and draws with the view of the static page; the
JavaScript beside this module only holds the controls.
"""

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any, get_args

import traitlets as t

from ftkit.models.known_shapes import KNOWN
from ftkit.models.shape import ModelShape
from ftkit.records.costs import MemoryEstimate
from ftkit.stages.costs import CARDS, MemoryPlan, fit
from ftkit.stages.costs import plan as choices
from ftkit.views.memory_planner import TITLE, memory_body, memory_html
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer, script

if TYPE_CHECKING:
    import pandas as pd

_SIZES = ("batch", "accumulation", "length", "new_tokens", "lora_r")
_SELECTS = ("stage", "method", "weights", "compute", "optimizer", "head")
_DEFAULT = MemoryPlan()


class MemoryPlanner(Viewer):
    """The memory of one training step, part by part, with every choice movable.

    Assigning to an attribute redraws; the controls in the browser set the same attributes.
    Choices that exclude each other are explained in the picture, except two that follow by
    themselves: full fine-tuning takes bfloat16 weights and copies, and bfloat16 weights compute
    in bfloat16.

    Attributes:
        model: Name of the model.
        stage: See `ftkit.stages.costs.MemoryPlan`, as for all that follow.
        method: ``"full"`` or ``"lora"``.
        weights: Storage of the base.
        compute: Dtype of the activations.
        optimizer: Which states are kept.
        head: Whole logits or tiles.
        roles: The plan's `layout`: one base or copies. (A widget's own `layout` is its CSS.)
        batch: Rows (pairs, completions) of a pass.
        accumulation: Passes a step.
        length: Tokens of a row.
        new_tokens: Of these, sampled ones.
        lora_r: Rank.
        checkpointing: Whether blocks are computed twice.
    """

    _esm = script("memory_planner")
    _css = rules("memory_planner")

    model = t.Unicode().tag(sync=True)
    stage = t.Enum(get_args(choices.Stage), _DEFAULT.stage).tag(sync=True)
    method = t.Enum(get_args(choices.Method), _DEFAULT.method).tag(sync=True)
    weights = t.Enum(get_args(choices.Weights), _DEFAULT.weights).tag(sync=True)
    compute = t.Enum(get_args(choices.Compute), _DEFAULT.compute).tag(sync=True)
    optimizer = t.Enum(get_args(choices.Optimizer), _DEFAULT.optimizer).tag(sync=True)
    head = t.Enum(get_args(choices.Head), _DEFAULT.head).tag(sync=True)
    roles = t.Enum(get_args(choices.Layout), _DEFAULT.layout).tag(sync=True)
    batch = t.Int(_DEFAULT.batch).tag(sync=True)
    accumulation = t.Int(_DEFAULT.accumulation).tag(sync=True)
    length = t.Int(_DEFAULT.length).tag(sync=True)
    new_tokens = t.Int(_DEFAULT.new_tokens).tag(sync=True)
    lora_r = t.Int(_DEFAULT.lora_r).tag(sync=True)
    checkpointing = t.Bool(_DEFAULT.checkpointing).tag(sync=True)

    _models = t.List(t.Unicode()).tag(sync=True)
    _title = t.Unicode(TITLE).tag(sync=True)
    _html = t.Unicode("").tag(sync=True)

    def __init__(
        self,
        model: Any = "llama-3.1-8b",
        plan: MemoryPlan | None = None,
        *,
        cards: Sequence[float] = CARDS,
    ) -> None:
        """Open the planner.

        Args:
            model: What `ModelShape.of` takes; a model of your own joins the known ones.
            plan: Where to start.
            cards: Memory of the cards in GB (1e9 bytes).

        Raises:
            SettingsError: no shape can be read from `model`, or a card of no size.
        """
        self._plan, self._cards = plan or _DEFAULT, tuple(cards)
        shape = ModelShape.of(model)
        self._own = {shape.name: shape}
        fit(shape, self._plan, cards=self._cards)  # complains here, not inside a callback
        given = {name: getattr(self._plan, name) for name in (*_SELECTS, *_SIZES, "checkpointing")}
        names = [*KNOWN, *(name for name in self._own if name not in KNOWN)]
        super().__init__(model=shape.name, roles=self._plan.layout, _models=names, **given)
        self._draw()
        self.observe(self._follow, names=["method", "weights"])
        self.observe(self._draw, names=["model", "roles", *given])

    @t.validate("model")
    def _known(self, proposal: Any) -> Any:
        name = proposal["value"]
        if name not in KNOWN and name not in self._own:
            raise t.TraitError(
                f"model {name!r} is unknown; use one of {', '.join(KNOWN)}, or open a planner with "
                "MemoryPlanner(your_config)"
            )
        return name

    @property
    def plan(self) -> MemoryPlan:
        """What is chosen now.

        Raises:
            ValueError: choices that exclude each other.
        """
        given = {name: getattr(self, name) for name in (*_SELECTS, *_SIZES, "checkpointing")}
        return replace(self._plan, layout=self.roles, **given)

    @property
    def estimate(self) -> MemoryEstimate:
        """The numbers in the picture.

        Raises:
            ValueError: choices that exclude each other.
        """
        return fit(self._own.get(self.model, self.model), self.plan, cards=self._cards)

    def to_html(self) -> str:
        """Return the picture as self-contained HTML without controls."""
        return memory_html(self.estimate)

    def to_pandas(self) -> "pd.DataFrame":
        """Return one row a moment and part, in GB (1e9 bytes)."""
        return self.estimate.to_pandas()

    def __str__(self) -> str:
        return str(self.estimate)

    def _follow(self, change: Any) -> None:
        """Let what can only follow from a choice follow."""
        if self.method == "full" and change["name"] == "method":
            self.roles = "copies"
            if self.weights in ("nf4", "int8"):
                self.weights = "bfloat16"
        if self.weights == "bfloat16":
            self.compute = "bfloat16"

    def _draw(self, *_: Any) -> None:
        try:
            self._html = memory_body(self.estimate)
        except ValueError as error:
            self._html = f'<p class="error" role="alert">{escape(str(error))}</p>'
