"""Takes a trainer's own displays away, where there are many runs or another display."""

from transformers import PrinterCallback, ProgressCallback, Trainer
from transformers.utils.notebook import NotebookProgressCallback


def hush(trainer: Trainer) -> None:
    """Remove the progress bar, the notebook's table and the printed logs."""
    for display in (NotebookProgressCallback, ProgressCallback, PrinterCallback):
        trainer.remove_callback(display)
