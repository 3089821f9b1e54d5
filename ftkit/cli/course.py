"""The course's notebooks: where they lie, in which order, and how a reader names them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ftkit.errors import SettingsError

DEFAULT_STAGES = ("02", "04", "06")
_NAME = re.compile(r"(?P<number>\d{2})_(?P<topic>[a-z0-9_]+)\.ipynb")


@dataclass(frozen=True, slots=True, order=True)
class Stage:
    """One notebook of the course.

    Attributes:
        number: Two digits that give the order, e.g. ``"02"``.
        topic: The rest of the file name, e.g. ``"sft"``.
        path: The notebook.
    """

    number: str
    topic: str
    path: Path

    @property
    def name(self) -> str:
        """File name without ending, e.g. ``"02_sft"``."""
        return f"{self.number}_{self.topic}"

    def answers_to(self, name: str) -> bool:
        """Whether a reader means this stage by `name`: number, topic or both."""
        wanted = name.strip().lower()
        return wanted in {self.number, str(int(self.number)), self.topic, self.name}


def home() -> Path:
    """Return the repository's ``notebooks`` folder, or the packaged one in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    repository = package.parent
    if (repository / "pyproject.toml").is_file() and (repository / "notebooks").is_dir():
        return repository / "notebooks"
    return package / "_notebooks"


def stages(folder: Path) -> list[Stage]:
    """Return the notebooks ``NN_topic.ipynb`` of `folder` in course order.

    Raises:
        SettingsError: there is none.
    """
    matches = ((_NAME.fullmatch(path.name), path) for path in folder.glob("*.ipynb"))
    found = sorted(Stage(m["number"], m["topic"], path) for m, path in matches if m)
    if not found:
        raise SettingsError(f"{folder} holds no notebook named like 02_sft.ipynb")
    return found


def default(known: Sequence[Stage]) -> list[Stage]:
    """Return the chain from SFT to PPO, as far as it is among `known`; all of them if it is not."""
    return [stage for stage in known if stage.number in DEFAULT_STAGES] or list(known)


def choose(known: Sequence[Stage], names: Sequence[str]) -> list[Stage]:
    """Return the stages called `names`, in course order, each once.

    Raises:
        SettingsError: a name that no stage answers to.
    """
    for name in names:
        if not any(stage.answers_to(name) for stage in known):
            listed = ", ".join(f"{stage.number} {stage.topic}" for stage in known)
            raise SettingsError(f"stage {name!r} is unknown; the stages are: {listed}")
    return [stage for stage in known if any(stage.answers_to(name) for name in names)]
