"""Makes the comparison that ftkit ships: ``python -m ftkit.stages.compare [folder]``.

Fifteen runs on the embedded model, each in a process of its own: about 20 minutes on 2 CPU cores.
With a folder the runs so far are kept there, and a second call goes on.
"""

import sys
import tempfile
from collections.abc import Sequence

from ftkit.records.comparison import recorded_folder
from ftkit.stages.compare import compare


def main(arguments: Sequence[str]) -> None:
    """Run the comparison with its defaults and write it to where `recorded` reads it."""
    with tempfile.TemporaryDirectory() as nowhere:
        result = compare(isolate=True, folder=arguments[0] if arguments else nowhere)
    print(result)
    if not result.failures():
        print(f"written to {result.save(recorded_folder())}")


if __name__ == "__main__":
    main(sys.argv[1:])
