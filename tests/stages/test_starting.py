"""Where a policy starts: what an adapter can be read from."""

from types import SimpleNamespace

import pytest
from peft import get_peft_model

from ftkit.models import load, read_adapter
from ftkit.stages.starting import carries, new_adapter, read_start


@pytest.mark.parametrize("of", ["trainer", "model", "base"])
def test_a_trainer_its_model_and_the_base_that_carries_its_layers_are_read(tiny_folder, of) -> None:
    base = load(str(tiny_folder), quantization=None, device="cpu")
    model = get_peft_model(base.model, new_adapter(2, 4))
    start = {"trainer": SimpleNamespace(model=model), "model": model, "base": base.model}[of]
    assert read_start(base, start).digest == read_adapter(model).digest
    assert carries(base.model, start) == (of != "base")
