"""Splits that sepnet draws: a share of each class, every class on both sides, groups whole."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from sepnet.data.splitting import choose, find_groups

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=80)


@given(LABELS, st.floats(0.05, 0.6), st.integers(0, 2**63 - 1))
def test_each_class_gives_its_share(labels: list[int], share: float, seed: int) -> None:
    tensor = torch.tensor(labels)
    held = choose(tensor, share, seed)
    assert torch.equal(held, choose(tensor, share, seed))
    for label in set(labels):
        members, chosen = labels.count(label), int(held[tensor == label].sum())
        assert abs(chosen - share * members) <= 1
        assert members == 1 or 0 < chosen < members


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), min_size=1, max_size=80), st.integers(0, 99))
def test_groups_are_never_divided(images: list[tuple[int, int]], seed: int) -> None:
    labels, groups = (torch.tensor(values) for values in zip(*images, strict=True))
    held = choose(labels, 0.2, seed, groups)
    for group in set(groups.tolist()):
        assert held[groups == group].unique().numel() == 1


@given(st.integers(0, 99))
def test_many_small_groups_meet_the_share(seed: int) -> None:
    groups = torch.arange(600) // 3
    labels = groups % 3
    held = choose(labels, 0.2, seed, groups)
    for label in range(3):
        assert abs(float(held[labels == label].float().mean()) - 0.2) < 0.02


def test_a_groups_name_is_the_patterns_first_group_or_its_match() -> None:
    names = ["p1_a.png", "p2_a.png", "p1_b.png"]
    assert find_groups(names, r"^(p\d)_").tolist() == [0, 1, 0]
    assert find_groups(names, "_[ab]").tolist() == [0, 0, 1]
