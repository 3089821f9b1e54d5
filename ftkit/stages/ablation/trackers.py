"""Reports each trial to an experiment tracker, through transformers' own callbacks.

A trial is one run there, named by its setting and seed, with the setting as the model's config and
the metrics logged once. Curves within a trial are `run`'s own to report.
"""

import tempfile
import warnings
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from ftkit.errors import SettingsError
from ftkit.records.ablation import AblationTrial


class Trackers:
    """The trackers that `report_to` names; none for ``"none"``."""

    def __init__(self, report_to: str, folder: Path | None) -> None:
        """Make the callbacks, so that a missing package shows before anything runs.

        Raises:
            SettingsError: transformers does not know the tracker, or its package is missing.
        """
        try:
            self._callbacks = [make() for make in get_reporting_integration_callbacks(report_to)]
        except (ValueError, RuntimeError, ImportError) as error:
            raise SettingsError(f"report_to={report_to!r}: {error}") from error
        self._report_to = report_to
        self._folder = folder

    def report(self, trial: AblationTrial, name: str) -> None:
        """Log a trial that is done; a tracker that fails is warned of and stops nothing."""
        if not self._callbacks or trial.state != "done":
            return
        try:
            self._report(trial, name)
        except Exception as error:  # trackers use the network, and raise what they like
            warnings.warn(
                f"report_to={self._report_to!r}: {name} was not reported "
                f"({type(error).__name__}: {error}); its result is kept",
                stacklevel=5,
            )

    def _report(self, trial: AblationTrial, name: str) -> None:
        folder = self._folder or Path(tempfile.gettempdir()) / "ftkit-ablation"
        arguments = TrainingArguments(
            output_dir=str(folder / "trackers"),
            run_name=name,
            seed=trial.seed,
            report_to=self._report_to,
        )
        # As in a hyperparameter search of transformers, so that each trial is a run of its own.
        state = TrainerState(is_hyper_param_search=True, trial_name=name)
        control, model = TrainerControl(), _Described(trial)
        logs = {**trial.metrics, "seconds": trial.seconds}
        for callback in self._callbacks:
            callback.on_train_begin(arguments, state, control, model=model)
            callback.on_log(arguments, state, control, model=model, logs=dict(logs))
            callback.on_train_end(arguments, state, control, model=model)


class _Described:
    """Stands where trackers look for a model, to find its config: here the setting."""

    def __init__(self, trial: AblationTrial) -> None:
        self.config: Any = PretrainedConfig(ablation={**trial.setting, "seed": trial.seed})
