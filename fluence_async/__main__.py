"""`python -m fluence_async` is `fluence`, where scripts are not on PATH."""

from __future__ import annotations

from .cli import main

if __name__ == "__main__":
    main()
