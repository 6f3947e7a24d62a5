"""Limits that hold as the server counts them: the process's limiter, and who waits for it."""

from .._sansio.learnt import Learnt, WindowSnapshot
from .._sansio.rate_limit import limiter_name
from ._look import FileLook
from .limiter import Limiter, LimiterSnapshot
from .memory import shared_limiter
from .permit import Permit

__all__ = [
    "FileLook",
    "Learnt",
    "Limiter",
    "LimiterSnapshot",
    "Permit",
    "WindowSnapshot",
    "limiter_name",
    "shared_limiter",
]
