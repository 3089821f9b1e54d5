"""How the workers of OpenMP wait for work; read by torch when it is imported.

torch and bitsandbytes each bring workers. By default they spin for milliseconds while they wait,
and on few or busy cores starve each other. Sleeping at once is as bad for small layers: waking a
worker takes some 0.3 ms, longer than the product that it is woken for, thousands of times a PPO
round. So they spin for about as long as a waking takes (a round of 22 to 24 s, of 16 to 18 s then;
SmolLM2-135M, 2 cores). Three and ten times as long gains next to nothing alone, and takes two and
four times as long beside one other busy process.
"""

import os
from collections.abc import MutableMapping

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> MutableMapping[str, str]:
    """Set the waiting of workers in `environment` unless it says how to wait; return it."""
    if not _WAITING.keys() & environment.keys():
        environment.update(_WAITING)
    return environment
