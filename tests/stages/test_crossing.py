"""What crosses a document border is measured on the model itself."""

import numpy as np
import pytest
import torch

from ftkit import stages
from ftkit.algos import group_text, sees_other_document
from ftkit.errors import SettingsError

DOCUMENTS = [list(range(10, 33)), list(range(50, 55)), list(range(70, 99)), [5, 6, 7]]


@pytest.fixture
def packed():
    return group_text(DOCUMENTS, 20)


def each_document_by_itself(model, packed) -> np.ndarray:
    """Losses of every prediction from forward passes that hold one document's part of a block."""
    rows = []
    for ids, owners in zip(packed.input_ids, packed.document_ids, strict=True):
        row = []
        for owner in owners.unique_consecutive():
            at = (owners == owner).nonzero().flatten()
            with torch.no_grad():
                logits = model(input_ids=ids[at][None]).logits[0]
            row.append(logits.log_softmax(-1))
        scores = torch.cat(row)[:-1]
        rows.append(-scores.gather(1, ids[1:, None])[:, 0])
    return torch.stack(rows).numpy()


def test_alone_means_as_if_each_document_went_through_the_model_by_itself(
    tiny_model, packed
) -> None:
    effect = stages.crossing_effect(tiny_model, packed, batch_size=2)
    expected = each_document_by_itself(tiny_model, packed)
    np.testing.assert_allclose(effect.alone, expected, atol=1e-5)


def test_packed_is_the_models_own_loss_and_gradient(tiny_model, packed) -> None:
    effect = stages.crossing_effect(tiny_model, packed, batch_size=1)
    out = tiny_model(input_ids=packed.input_ids, labels=packed.input_ids)
    assert effect.packed.mean() == pytest.approx(out.loss.item(), abs=1e-5)
    out.loss.backward()
    norm = torch.cat([p.grad.flatten() for p in tiny_model.parameters()]).norm().item()
    assert effect.packed_gradient == pytest.approx(norm, rel=1e-4)


def test_only_predictions_behind_a_border_change(tiny_model, packed) -> None:
    effect = stages.crossing_effect(tiny_model, packed)
    assert np.array_equal(effect.where, sees_other_document(packed.document_ids)[:, :-1].numpy())
    changed = ~np.isclose(effect.packed, effect.alone, atol=1e-6)
    assert np.array_equal(changed, effect.where)
    assert effect.difference > 0
    assert -1 <= effect.cosine < 1


def test_without_borders_nothing_changes(tiny_model) -> None:
    effect = stages.crossing_effect(tiny_model, group_text([list(range(10, 50))], 20))
    assert effect.share == 0
    np.testing.assert_allclose(effect.packed, effect.alone, atol=1e-6)
    assert effect.cosine == pytest.approx(1, abs=1e-5)


def test_the_model_is_left_as_it_was(tiny_model, packed) -> None:
    tiny_model.train()
    stages.crossing_effect(tiny_model, packed)
    assert tiny_model.training
    assert all(p.grad is None for p in tiny_model.parameters())


def test_a_model_without_anything_to_train_is_refused(tiny_model, packed) -> None:
    tiny_model.requires_grad_(False)
    with pytest.raises(SettingsError, match=r"no trainable parameter .* give trainer\.model"):
        stages.crossing_effect(tiny_model, packed)
