"""Preference sets: known gold, real raters, any set by name; no prompt on both sides."""

from importlib import resources

import datasets
import pytest
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from ftkit import data
from ftkit.data.preferences import prompt_key
from ftkit.data.sentiment import MIN_GAP, PAIRS_FILE, paired_from_both_ends
from ftkit.errors import DataError


@pytest.fixture(scope="module")
def pairs():
    return data.sentiment_pairs()


def said(column) -> list[str]:
    return [messages[-1]["content"] for messages in column]


def test_the_stored_gold_is_the_sentiment_of_the_answers(pairs) -> None:
    assert data.sentiment(said(pairs["chosen"])) == pytest.approx(pairs["gold_chosen"])
    assert data.sentiment(said(pairs["rejected"])) == pytest.approx(pairs["gold_rejected"])


def test_the_stored_pairs_are_many_small_and_clear(pairs) -> None:
    assert len(pairs) >= 300
    assert len({prompt_key(row) for row in pairs}) >= 80
    assert all(row["gold_chosen"] - row["gold_rejected"] > MIN_GAP for row in pairs)
    assert (resources.files("ftkit.data") / PAIRS_FILE).stat().st_size < 300_000
    asked = {messages[0]["content"] for messages in pairs["prompt"]}
    assert asked <= set(data.sentiment_prompts())
    assert len(set(data.sentiment_prompts())) == 100


def test_no_answer_is_stored_twice_for_one_prompt(pairs) -> None:
    texts = [
        (row["prompt"][0]["content"], row[side][0]["content"])
        for row in pairs
        for side in ("chosen", "rejected")
    ]
    assert len(set(texts)) == len(texts)


def test_length_alone_does_not_tell_chosen_from_rejected(pairs) -> None:
    chosen, rejected = said(pairs["chosen"]), said(pairs["rejected"])
    longer = sum(len(a) > len(b) for a, b in zip(chosen, rejected, strict=True))
    assert 0.3 < longer / len(pairs) < 0.7


def test_noise_flips_that_share_and_the_gold_stays_true(pairs) -> None:
    noisy = data.sentiment_pairs(noise=0.25, seed=1)
    flipped = [row["gold_chosen"] < row["gold_rejected"] for row in noisy]
    assert sum(flipped) == round(0.25 * len(pairs))
    assert data.sentiment(said(noisy["chosen"])) == pytest.approx(noisy["gold_chosen"])
    assert noisy["prompt"] == pairs["prompt"]
    assert noisy["chosen"] == data.sentiment_pairs(noise=0.25, seed=1)["chosen"]
    assert noisy["chosen"] != data.sentiment_pairs(noise=0.25, seed=2)["chosen"]
    assert data.sentiment_pairs(noise=1.0)["chosen"] == pairs["rejected"]


@pytest.mark.parametrize("noise", [-0.1, 1.1, float("nan")])
def test_a_noise_that_is_no_share_is_refused(noise) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        data.sentiment_pairs(noise=noise)


def test_sentiment_knows_good_from_bad() -> None:
    good, bad, none = data.sentiment(["I love it!", "This is awful.", "The train leaves at six."])
    assert good > 0.5
    assert bad < -0.3
    assert none == 0.0


def test_answers_are_paired_best_with_worst_and_never_with_equals() -> None:
    answers = ["I love it!", "I love it!", "It is awful.", "It is awful.", "", "It is a train."]
    made = paired_from_both_ends("How is it?", [*answers, "It is nice.", "It is bad."])
    sides = [(pair["chosen"], pair["rejected"]) for pair in made]
    assert sides == [("I love it!", "It is bad."), ("It is nice.", "It is awful.")]
    assert all(pair["gold_chosen"] - pair["gold_rejected"] > MIN_GAP for pair in made)
    assert paired_from_both_ends("How is it?", ["A train.", "A bus."]) == []


@pytest.mark.parametrize("load", [data.sentiment_pairs, data.chitchat])
def test_no_prompt_stands_on_both_sides_of_the_split(load) -> None:
    whole = load()
    parts = data.split_by_prompt(whole, held_out=0.25, seed=3)
    train, test = ({prompt_key(row) for row in parts[side]} for side in ("train", "test"))
    assert not train & test
    assert len(test) == round(0.25 * len(train | test))
    assert len(parts["train"]) + len(parts["test"]) == len(whole)
    again = data.split_by_prompt(whole, held_out=0.25, seed=3)
    assert again["test"]["chosen"] == parts["test"]["chosen"]


def test_without_a_prompt_column_the_common_beginning_is_the_prompt() -> None:
    ask = {"role": "user", "content": "Hi?"}
    rows = [
        {
            "chosen": [ask, {"role": "assistant", "content": f"good {i}"}],
            "rejected": [ask, {"role": "assistant", "content": f"bad {i}"}],
        }
        for i in range(3)
    ]
    assert len({prompt_key(row) for row in rows}) == 1
    with pytest.raises(DataError, match="leaves one side empty"):
        data.split_by_prompt(Dataset.from_list(rows))


def test_rated_conversations_are_equally_long_and_rated_apart() -> None:
    talks = data.chitchat(turns=4, min_gap=3.0)
    assert len(talks) > 300
    roles = ["user", "assistant"] * 2
    for row in talks:
        assert [m["role"] for m in row["chosen"]] == [m["role"] for m in row["rejected"]] == roles
        assert row["rating_chosen"] - row["rating_rejected"] >= 3.0
        assert row["chosen"] != row["rejected"]
    topics = {prompt_key(row) for row in talks}
    assert len(topics) > 25


def test_bad_requests_for_conversations_are_errors() -> None:
    with pytest.raises(DataError, match="turns=3 must be even"):
        data.chitchat(turns=3)
    with pytest.raises(DataError, match="differ by 99"):
        data.chitchat(min_gap=99)


def test_any_preference_set_comes_by_name(tmp_path, pairs) -> None:
    pairs.select(range(4)).to_json(tmp_path / "train.jsonl")
    loaded = data.preferences(str(tmp_path), split="train[:3]")
    assert said(loaded["chosen"]) == said(pairs["chosen"])[:3]


@pytest.fixture
def hub(monkeypatch, pairs):
    """The hub behind `datasets.load_dataset`: one set with two subsets, and its errors."""
    asked = []

    def load_dataset(path, name=None, *, split=None):
        asked.append((path, name, split))
        if path != "lab/ratings":
            raise DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub.")
        if name is None:
            raise ValueError("Config name is missing.\nPlease pick one: ['clean', 'all']")
        part, _, bounds = split.partition("[")
        if part != "train":
            raise ValueError(f"Unknown split \"{part}\". Should be one of ['train'].")
        rows = pairs if name == "all" else pairs.select(range(6))
        return rows.select(range(int(bounds[1:-1]))) if bounds else rows

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_a_set_of_the_hub_is_asked_for_by_name_subset_and_split(hub, pairs) -> None:
    loaded = data.preferences("lab/ratings", config="clean", split="train[:2]")
    assert hub == [("lab/ratings", "clean", "train[:2]")]
    assert said(loaded["chosen"]) == said(pairs["chosen"])[:2]
    assert len(data.preferences("lab/ratings", config="all")) == len(pairs)
    assert hub[-1] == ("lab/ratings", "all", "train")


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("lab/rating", {}, "'lab/rating' .*doesn't exist on the Hub. Check the spelling"),
        ("lab/ratings", {}, "Config name is missing$"),
        ("lab/ratings", {"config": "all", "split": "test"}, 'Unknown split "test"'),
    ],
)
@pytest.mark.usefixtures("hub")
def test_what_the_hub_answers_is_passed_on(name, options, says) -> None:
    with pytest.raises(DataError, match=says) as caught:
        data.preferences(name, **options)
    assert caught.value.__cause__ is not None


def test_offline_the_error_says_what_works_without_a_network(monkeypatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"Couldn't reach 'lab/ratings'.*sentiment_pairs\(\)"):
        data.preferences("lab/ratings")


def test_a_set_that_breaks_while_it_is_built_is_a_data_error(monkeypatch) -> None:
    def load_dataset(*_, **__):
        raise DatasetGenerationError("An error occurred while generating the dataset")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match="while generating the dataset"):
        data.preferences("lab/ratings")


def test_a_set_that_cannot_be_loaded_says_so(tmp_path) -> None:
    with pytest.raises(DataError, match=r"no preference set .*can be loaded"):
        data.preferences(str(tmp_path / "nowhere"))
    Dataset.from_list([{"text": "a"}]).to_json(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match="have no 'chosen'"):
        data.preferences(str(tmp_path))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"chosen": "a"}, "have no 'rejected'"),
        ({"chosen": 1, "rejected": 2}, "unknown"),
        ({"prompt": "a", "chosen": ["b"], "rejected": ["c"]}, "give all of them as text"),
        ({"prompt": "a", "chosen": [{"role": "user", "content": "b"}], "rejected": "c"}, "text"),
    ],
)
def test_columns_of_the_wrong_kind_are_errors(row, says) -> None:
    with pytest.raises(DataError, match=says):
        data.require_preferences(Dataset.from_list([row]))
    with pytest.raises(DataError, match="not a list"):
        data.require_preferences([row])
