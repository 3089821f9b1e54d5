"""Packing loses nothing but the remainder, and knows whose token each one is."""

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from transformers.masking_utils import find_packed_sequence_indices
from trl import pack_dataset

from ftkit.algos import document_positions, group_text, sees_other_document

DOCUMENTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9], [10, 11]]
corpora = st.lists(st.lists(st.integers(0, 99), max_size=9), max_size=9).filter(
    lambda documents: sum(map(len, documents)) >= 2
)


def test_a_small_corpus_by_hand() -> None:
    packed = group_text(DOCUMENTS, 4)
    assert packed.input_ids.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert packed.document_ids.tolist() == [[0, 0, 0, 1], [2, 2, 2, 2]]
    assert packed.dropped == 3


@given(corpora, st.data())
def test_every_token_is_in_its_place_or_in_the_remainder(documents, data) -> None:
    whole = [token for document in documents for token in document]
    owners = [index for index, document in enumerate(documents) for _ in document]
    size = data.draw(st.integers(2, len(whole)))
    packed = group_text(documents, size)
    kept = packed.input_ids.flatten().tolist()
    assert kept == whole[: len(kept)]
    assert packed.document_ids.flatten().tolist() == owners[: len(kept)]
    assert packed.dropped == len(whole) - len(kept) < size


@given(corpora, st.data())
def test_trl_cuts_the_same_blocks_and_keeps_the_remainder(documents, data) -> None:
    size = data.draw(st.integers(2, sum(map(len, documents))))
    packed = group_text(documents, size)
    theirs = pack_dataset(Dataset.from_dict({"input_ids": documents}), size, "wrapped")["input_ids"]
    assert packed.input_ids.tolist() == [block for block in theirs if len(block) == size]


@given(corpora, st.data())
def test_context_crosses_where_causal_attention_reaches_another_document(documents, data) -> None:
    size = data.draw(st.integers(2, sum(map(len, documents))))
    ids = group_text(documents, size).document_ids
    by_hand = [[any(row[s] != row[t] for s in range(t)) for t in range(size)] for row in ids]
    assert sees_other_document(ids).tolist() == by_hand


@given(corpora, st.data())
def test_transformers_reads_the_documents_back_from_the_positions(documents, data) -> None:
    size = data.draw(st.integers(2, sum(map(len, documents))))
    ids = group_text(documents, size).document_ids
    positions = document_positions(ids)
    found = find_packed_sequence_indices(positions)
    found = torch.zeros_like(ids) if found is None else found
    same = ids[:, :, None] == ids[:, None, :]
    assert torch.equal(found[:, :, None] == found[:, None, :], same)
    assert torch.equal(positions, torch.tril(same, -1).sum(-1))


@pytest.mark.parametrize(
    ("documents", "size", "says"),
    [
        ([], 4, "the corpus is empty: 0 documents"),
        ([[], []], 4, "the corpus is empty: 2 documents"),
        (DOCUMENTS, 1, "block_size=1 must be at least 2"),
        (DOCUMENTS, -3, "block_size=-3 must be at least 2"),
        (DOCUMENTS, 12, "block_size=12 is longer than the corpus of 11 tokens.*use at most 11"),
    ],
)
def test_what_cannot_be_packed_says_why(documents, size, says) -> None:
    with pytest.raises(ValueError, match=says):
        group_text(documents, size)
