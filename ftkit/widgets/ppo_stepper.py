"""`PPOStepper`: walk through one iteration of PPO, a token and a minibatch at a time.

The data goes to the browser once; stepping, playing and choosing need no kernel, so `save_html`
gives the same instrument as a page of its own. Left out: comparing two runs side by side.
"""

import os
from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import traitlets as t

from ftkit.records import PPOTrace, ppo_store
from ftkit.records.ppo_trace import PHASES
from ftkit.views import ppo_payload
from ftkit.views.ppo_stepper import stepper_html
from ftkit.views.style import rules
from ftkit.widgets.viewer import Viewer

if TYPE_CHECKING:
    import pandas as pd

_HERE = Path(__file__).parent
_PRESET_BYTES = 400_000
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<style>
:root{{color-scheme:light dark}}body{{margin:0 auto;max-width:1180px;padding:18px 16px}}
@media (prefers-color-scheme:dark){{body{{background:#111418}}}}
{css}
</style></head><body>
<div id="stepper"></div>
<noscript>{still}</noscript>
<script type="application/json" id="state">{state}</script>
<script type="module">
{script}
const state = JSON.parse(document.getElementById("state").textContent);
standalone(document.getElementById("stepper"), state);
</script>
</body></html>
"""


class PPOStepper(Viewer):
    """One recorded PPO run, phase by phase: rollout, score, KL, values, GAE, updates.

    Above stand buttons for recorded runs that ship with ftkit, one healthy and four that fail, and
    a few curves of the run that is shown; a click on a curve goes to that iteration.
    Keys: ← → a step, ↑ ↓ a phase, Home and End the first and last step of the phase, Space plays.
    The browser sets the attributes below as the reader moves; assigning to them moves the reader.

    Attributes:
        preset: Name of the shipped trace that is shown; empty for the trace given.
        iteration: Number of the iteration; the nearest one that was recorded is shown.
        row: Which recorded answer, from 0.
        phase: One of `ftkit.records.ppo_trace.PHASES`.
        step: Step within the phase, from 0.
    """

    _esm = _HERE / "ppo_stepper.js"
    _css = rules("ppo_stepper") + (_HERE / "ppo_stepper.css").read_text(encoding="utf-8")

    preset = t.Unicode("").tag(sync=True, echo_update=False)
    iteration = t.Int(1).tag(sync=True, echo_update=False)
    row = t.Int(0).tag(sync=True, echo_update=False)
    phase = t.Enum(PHASES, "rollout").tag(sync=True, echo_update=False)
    step = t.Int(0).tag(sync=True, echo_update=False)

    _data = t.Unicode().tag(sync=True)
    _presets = t.Unicode("{}").tag(sync=True)

    def __init__(
        self, trace: PPOTrace, *, iteration: int | None = None, row: int = 0, presets: bool = True
    ) -> None:
        """Open the stepper.

        Args:
            trace: A record with at least one iteration.
            iteration: Number of the iteration to start at; None for where the trace says, or the
                first.
            row: Which recorded answer to start at.
            presets: Whether to offer the traces that ftkit ships beside this one.

        Raises:
            ValueError: the trace is empty, or has no such iteration or row.
        """
        if not trace.iterations:
            raise ValueError("the trace is empty: run trainer.train() first, or load a saved trace")
        self._trace = trace
        start = trace.start if iteration is None else None
        number = iteration if iteration is not None else trace.iterations[0].number
        number, row = (start.iteration, start.row) if start else (number, row)
        rows = len(trace.at(number).tokens)
        if not 0 <= row < rows:
            raise ValueError(f"iteration {number} has rows 0 to {rows - 1}, not {row}")
        self._offered = ppo_store.preset_names() if presets else ()
        super().__init__(
            iteration=number,
            row=row,
            phase=start.phase if start else PHASES[0],
            step=start.step if start else 0,
            _data=ppo_payload.to_json(trace),
            _presets=_payloads(self._offered),
        )

    @staticmethod
    def presets() -> tuple[str, ...]:
        """Return the names of the recorded traces that ftkit ships, each with one failure."""
        return ppo_store.preset_names()

    @classmethod
    def from_preset(cls, name: str) -> "PPOStepper":
        """Open the stepper on a trace that ftkit ships.

        Raises:
            ValueError: `name` is none of `presets`.
        """
        return cls(ppo_store.load_preset(name))

    @property
    def trace(self) -> PPOTrace:
        """The trace that is shown: the one given, or the preset chosen."""
        return ppo_store.load_preset(self.preset) if self.preset else self._trace

    def to_pandas(self) -> "pd.DataFrame":
        """Return the answer that is shown as a table, one row a token."""
        trace = self.trace
        number, row = self._place(trace)
        return trace.to_pandas(number, row)

    def to_html(self) -> str:
        """Return the GAE of the answer that is shown, and recorded runs, as HTML without script."""
        trace = self.trace
        others = [ppo_store.load_preset(name) for name in self._offered if name != self.preset]
        return stepper_html(trace, *self._place(trace), others)

    def save_html(self, path: str | os.PathLike[str]) -> Path:
        """Write the stepper as one page that works offline, without a kernel; return its path.

        Folders on the way are made.

        Without scripts the page shows the static picture.
        """
        names = ("_data", "_presets", "preset", "iteration", "row", "phase", "step")
        state = ppo_payload.dumps({name: getattr(self, name) for name in names})
        page = _PAGE.format(
            title=escape(self.trace.title or "PPO stepper"),
            policy=_POLICY,
            css=str(self._css),
            still=self.to_html(),
            state=state.replace("<", "\\u003c"),
            script=(_HERE / "ppo_stepper.js").read_text(encoding="utf-8"),
        )
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
        return target

    def __str__(self) -> str:
        trace = self.trace
        number, row = self._place(trace)
        return f"{trace}\niteration {number}, row {row}\n{trace.to_pandas(number, row)}"

    def _place(self, trace: PPOTrace) -> tuple[int, int]:
        """Return the iteration and row that the browser shows for the present attributes."""
        nearest = min(trace.iterations, key=lambda it: abs(it.number - self.iteration))
        return nearest.number, min(max(self.row, 0), len(nearest.tokens) - 1)


def _payloads(names: Iterable[str]) -> str:
    payloads = {
        name: ppo_payload.to_json(ppo_store.load_preset(name), _PRESET_BYTES) for name in names
    }
    return "{" + ",".join(f"{ppo_payload.dumps(k)}:{v}" for k, v in payloads.items()) + "}"
