"""The arithmetic of the role map: who holds what, each part once, and both layouts added up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.records import Part, RoleMap
from ftkit.records.algorithm_roles import ALGORITHMS

PARTS = (
    Part("base", "base", 100),
    Part("policy", "adapter", 10),
    Part("reference", "adapter", 10),
    Part("reward", "adapter", 20),
    Part("value head", "head", 1),
    Part("score head", "head", 2),
)
COPIES = {"LM head": 400, "value head": 401, "score head": 402}
MAP = RoleMap("tiny", "nf4", PARTS, 143, "float32", COPIES)


@pytest.mark.parametrize(
    ("name", "shared", "copied"),
    [
        ("Pre-training, SFT", 110, 400),
        ("Reward model", 122, 402),
        ("PPO", 143, 400 + 401 + 402 + 400),
        ("DPO", 120, 800),
        ("GRPO, RLOO", 110, 400),
        ("Best-of-n", 110, 400),
    ],
)
def test_an_algorithm_costs_what_its_models_cost(name: str, shared: int, copied: int) -> None:
    assert MAP.shared_size(name) == shared
    assert MAP.copied_size(name) == copied
    assert MAP.factor(name) == pytest.approx(copied / shared)


def test_a_condition_that_holds_adds_its_models() -> None:
    assert MAP.shared_size("GRPO", optional=True) == 110 + 20 + 2 + 10
    assert MAP.copied_size("GRPO", optional=True) == 400 + 402 + 400
    assert MAP.shared_size("PPO", optional=True) == MAP.shared_size("PPO")


def test_actor_and_critic_share_an_adapter_that_counts_once() -> None:
    names = [part.name for part in MAP.held("PPO")]
    assert sorted(names) == sorted({part.name for part in PARTS})
    assert [part.name for part in MAP.held("DPO")] == ["base", "policy", "reference"]


def test_the_factor_is_smaller_weights_times_sharing() -> None:
    smaller, sharing = MAP.reasons("PPO")
    assert smaller == pytest.approx(1603 / 400)
    assert sharing == pytest.approx(400 / 143)
    assert smaller * sharing == pytest.approx(MAP.factor("PPO"))


@given(sizes=st.lists(st.integers(1, 10**12), min_size=6, max_size=6))
def test_whatever_the_sizes_nobody_holds_more_than_everything(sizes: list[int]) -> None:
    parts = tuple(Part(p.name, p.kind, size) for p, size in zip(PARTS, sizes, strict=True))
    found = RoleMap("tiny", "", parts, sum(sizes), "float32", COPIES)
    for algorithm in ALGORITHMS:
        always = found.shared_size(algorithm)
        assert parts[0].size < always <= found.shared_size(algorithm, optional=True) <= found.whole
        smaller, sharing = found.reasons(algorithm)
        assert smaller * sharing == pytest.approx(found.factor(algorithm))
    assert found.shared_size("PPO") == found.whole


def test_without_a_reference_adapter_the_bare_base_is_the_reference() -> None:
    bare = RoleMap("tiny", "", PARTS[:2] + PARTS[3:], 133, "float32", COPIES)
    assert bare.shared_size("DPO") == 110
    assert bare.part("reference") is None


def test_the_table_adds_up_to_the_totals_and_says_when() -> None:
    table = MAP.to_pandas()
    always = table[table["when"] == ""].groupby(["algorithm", "layout"])["MB"].sum() * 1e6
    for algorithm in ALGORITHMS:
        assert always[algorithm.name, "one base"] == pytest.approx(MAP.shared_size(algorithm))
        assert always[algorithm.name, "full copies"] == pytest.approx(MAP.copied_size(algorithm))
    grpo = table[(table["algorithm"] == "GRPO, RLOO") & (table["part"] == "reference")]
    assert grpo["when"].tolist() == ["if β > 0"]
    assert not table[table["part"] == "base"]["trained"].any()


def test_the_summary_has_a_row_an_algorithm() -> None:
    parts = tuple(Part(p.name, p.kind, p.size * 10**6) for p in PARTS)
    copies = {head: size * 10**6 for head, size in COPIES.items()}
    found = RoleMap("tiny", "nf4", parts, 143, "float32", copies)
    rows = {row[0]: row[1:] for row in found.summary().rows}
    assert list(rows) == [a.name for a in ALGORITHMS]
    assert rows["PPO"][0] == 4
    assert rows["DPO"] == (2, 800, 120, pytest.approx(800 / 120))


@pytest.mark.parametrize("name", ["ppo", "PPO", "rloo", "SFT", "GRPO, RLOO"])
def test_an_algorithm_answers_to_its_names(name: str) -> None:
    assert name.lower() in MAP.algorithm(name).name.lower()


def test_an_unknown_algorithm_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"'A2C' is none of .*PPO"):
        MAP.algorithm("A2C")


def test_a_map_needs_one_base_and_every_copy() -> None:
    with pytest.raises(ValueError, match="one base"):
        RoleMap("tiny", "", PARTS[1:], 43, "float32", COPIES)
    with pytest.raises(ValueError, match="no copy has a score head"):
        RoleMap("tiny", "", PARTS, 143, "float32", {"LM head": 1, "value head": 1})


def test_grpo_needs_a_reference_only_with_beta_and_dpo_always() -> None:
    grpo, dpo = MAP.algorithm("GRPO"), MAP.algorithm("DPO")
    assert [seat.role for seat in grpo.present()] == ["policy"]
    assert [seat.role for seat in dpo.present()] == ["policy", "reference"]
    assert [seat.role for seat in MAP.algorithm("PPO").present()] == [
        *("actor", "critic", "reward", "reference"),
    ]
