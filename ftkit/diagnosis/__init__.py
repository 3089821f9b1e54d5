"""The doctor: finds what fails without a word, before training and while it runs.

Every check reads what the trainer really uses: prepared labels, the collated batch, the model, its
arguments, its logs. What each code means is in ``codes.md`` beside this module. torch and
transformers are imported when a name of this room is first used.
"""

from typing import TYPE_CHECKING

from ftkit.late import late

_HOMES = {
    "CODES": "codes",
    "Explanation": "codes",
    "TrainingWarning": "callback",
    "Watch": "callback",
    "doctor": "examine",
    "explain": "codes",
    "judge": "curves",
}

__all__ = ["CODES", "Explanation", "TrainingWarning", "Watch", "doctor", "explain", "judge"]

if TYPE_CHECKING:
    from ftkit.diagnosis.callback import TrainingWarning as TrainingWarning
    from ftkit.diagnosis.callback import Watch as Watch
    from ftkit.diagnosis.codes import CODES as CODES
    from ftkit.diagnosis.codes import Explanation as Explanation
    from ftkit.diagnosis.codes import explain as explain
    from ftkit.diagnosis.curves import judge as judge
    from ftkit.diagnosis.examine import doctor as doctor

late(__name__, _HOMES)
