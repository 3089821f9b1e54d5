"""Scripts held against the installed libraries: old calls are named with line and successor."""

import json

import pytest

from ftkit.diagnosis.scripts import examine_script
from ftkit.errors import DataError

OLD = """
import trl
from transformers import TrainingArguments as TA, AutoModelForCausalLM
from trl import SFTTrainer, DataCollatorForCompletionOnlyLM
from trl.experimental.ppo import PPOTrainer
from peft import LoraConfig

args = TA("out", evaluation_strategy="steps")
trainer = SFTTrainer(model, args=args, tokenizer=tok, max_seq_length=512)
trl.SFTConfig("out", max_length=5)
LoraConfig(r=8, anything=1)
local(tokenizer=3)
"""
NEW = """
from trl import SFTConfig, SFTTrainer
trainer = SFTTrainer("m", args=SFTConfig("out", max_length=512), processing_class=None)
"""


def test_old_calls_are_named_with_line_and_successor(tmp_path) -> None:
    path = tmp_path / "old.py"
    path.write_text(OLD)
    found = {f.where: f for f in examine_script(path)}
    seen = sorted((f.where.split()[-1], f.message.split(" in ")[0]) for f in examine_script(path))
    assert seen == [
        ("11", "LoraConfig has no argument 'anything'"),
        ("4", "trl has no DataCollatorForCompletionOnlyLM"),
        ("5", "there is no module trl.experimental.ppo"),
        ("8", "TrainingArguments has no argument 'evaluation_strategy'"),
        ("9", "SFTTrainer has no argument 'max_seq_length'"),
        ("9", "SFTTrainer has no argument 'tokenizer'"),
    ]
    assert found["old.py, line 8"].fix == "eval_strategy="
    assert "ftkit.PPOTrainer" in found["old.py, line 5"].fix


def test_current_code_passes(tmp_path) -> None:
    path = tmp_path / "new.py"
    path.write_text(NEW)
    (found,) = examine_script(path)
    assert (found.code, found.severity) == ("api-current", "ok")


def test_notebooks_with_magics_are_read(tmp_path) -> None:
    cells = [
        {"cell_type": "markdown", "source": "from trl import PPOTrainer"},
        {"cell_type": "code", "source": ["%pip install trl\n", "!ls\n", "from trl import X1"]},
        {"cell_type": "code", "source": "%%bash\nfrom trl import X2"},
    ]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert [f.message.split(" in ")[0] for f in examine_script(path)] == ["trl has no X1"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [("a.py", "def f(:", "line 1: no valid Python"), ("a.ipynb", "{}", "is no notebook")],
)
def test_unreadable_files_are_named(tmp_path, name, text, says) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        examine_script(path)


def test_nothing_of_a_script_is_run(tmp_path) -> None:
    path = tmp_path / "evil.py"
    path.write_text(f"open({str(tmp_path / 'made')!r}, 'w')\nfrom trl import SFTConfig\n")
    examine_script(path)
    assert not (tmp_path / "made").exists()
