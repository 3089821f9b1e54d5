"""`python -m ftkit.cli` is the same as `ftkit`."""

from ftkit.cli import main

if __name__ == "__main__":
    main()
