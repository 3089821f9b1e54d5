"""One-line ablations: any function, a grid of settings, some seeds; resumable, shared, compared.

In reading order: `design` (which trials, and all that can be wrong before they run), `store` and
`journal` (what has ended, what runs), `runners` and `child` (here, or in a fresh process), `loop`
(`ablate`), then `clock`, `screen` and `trackers`.

Why Optuna, and how much of it. Its journal keeps a trial as one appended line with an fsync, is
replayed by every process that opens it, holds JSON and no pickles, and is read by Optuna's own
tools (`optuna.load_study`, optuna-dashboard). That is the storage here, and each trial is an
`optuna` trial with its params, value and attributes. Its scheduling is not used: `GridSampler` may
give one point to two workers at once (its source says so), counts no seeds, and takes a longer
list of values for another grid; and a journal, unlike a database, has no heartbeat, so the trials
of a killed process would be "running" forever. Which trial is free is told by file locks instead:
they need no clock, and end with their process. Left out: searching for the best setting. For that
use Optuna itself.
"""

from ftkit.stages.ablation.loop import AblationInterrupted, ablate
from ftkit.stages.ablation.store import retry_failures

__all__ = ["AblationInterrupted", "ablate", "retry_failures"]
