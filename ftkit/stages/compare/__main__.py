"""Makes the comparison that ftkit ships: ``python -m ftkit.stages.compare [folder]``.

Fifteen runs on the embedded model, each in a process of its own: about 20 minutes on 2 CPU cores.
The runs so far are kept in the folder, a new temporary one without an argument; a second call with
it goes on, and repeats what failed.
"""

import sys
import tempfile
from collections.abc import Sequence

from ftkit.records.comparison import recorded_folder
from ftkit.stages.compare import compare


def main(arguments: Sequence[str]) -> None:
    """Run the comparison with its defaults and write it to where `recorded` reads it."""
    folder = arguments[0] if arguments else tempfile.mkdtemp(prefix="ftkit-compare-")
    print(f"runs are kept in {folder}")
    result = compare(isolate=True, folder=folder)
    print(result)
    if not result.failures():
        print(f"written to {result.save(recorded_folder())}")


if __name__ == "__main__":
    main(sys.argv[1:])
