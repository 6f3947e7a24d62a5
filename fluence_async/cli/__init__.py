"""The command line (`fluence chat`, `usage`, `limits`, `serve`), made with the public API only."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = {"click", "markdown_it", "prompt_toolkit", "pygments", "rich", "typer"}


def main() -> None:
    """Run the command line that the process was started with; exits with its code.

    What draws and parses is imported in here and not above: pip puts the `fluence` command on
    PATH with or without the extra, and without it the command must be able to say so.
    """
    try:
        from .app import run

        run()
    except KeyboardInterrupt:  # while the imports ran; later ones are met below
        sys.exit(130)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        print(
            f"fluence: the command line needs {missing}: pip install 'fluence-async[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
