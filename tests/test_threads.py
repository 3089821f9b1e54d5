"""`wait_briefly`: a default that a user's own choice overrides."""

import pytest

from ftkit.threads import wait_briefly


def test_workers_spin_for_a_moment_then_sleep() -> None:
    found = wait_briefly({"HOME": "/"})
    assert found == {"HOME": "/", "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
    assert wait_briefly(dict(found)) == found


@pytest.mark.parametrize("own", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "0"}])
def test_who_has_chosen_is_left_alone(own) -> None:
    assert wait_briefly(dict(own)) == own
