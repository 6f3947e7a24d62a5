"""What machines share through a Redis (extra `redis`): a cache of answers, and limits."""

from ._look import RedisLook
from .cache import RedisCache
from .limiter import RedisLimiter

__all__ = ["RedisCache", "RedisLimiter", "RedisLook"]
