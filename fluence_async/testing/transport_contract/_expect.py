"""A fact that must hold, in; nothing, or an AssertionError that says what was expected, out.

Law: the checks run wherever their user's tests run, also under `python -O`, so they use no
`assert` and no test framework.
"""

from __future__ import annotations

from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["expect", "raises"]

E = TypeVar("E", bound=BaseException)


def expect(fact: object, expectation: str) -> None:
    """Raise an AssertionError unless `fact` is true."""
    if not fact:
        raise AssertionError(expectation)


class raises(Generic[E]):  # noqa: N801 — reads as pytest's
    """The body must raise `kind`; `value` is what it raised."""

    value: E

    def __init__(self, kind: type[E]) -> None:
        self._kind = kind

    def __enter__(self) -> raises[E]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        if error is None:
            raise AssertionError(f"expected {self._kind.__name__}, and nothing was raised")
        if isinstance(error, self._kind):
            self.value = error
            return True
        return False
