"""The documented API as a server on this machine, by its own code.

It shares types with the SDK and nothing else: neither limiter, retries nor cache, because the
one must prove the other.

```python
async with LocalServer(port=8080) as server:  # on asyncio
    print(server.base_url, server.api_key)
    await asyncio.Event().wait()
```
"""

from __future__ import annotations

from .local import DOCUMENTED_LIMITS, LocalServer
from .refusal import Refusal
from .replies import Answer, Call, Reply, ReplyLike, Status
from .responders import Responder
from .responders.chaos import Chaos
from .responders.replay import Replay
from .responders.rules import Rules
from .responders.upstream import Upstream
from .turn import Turn

__all__ = [
    "DOCUMENTED_LIMITS",
    "Answer",
    "Call",
    "Chaos",
    "LocalServer",
    "Refusal",
    "Replay",
    "Reply",
    "ReplyLike",
    "Responder",
    "Rules",
    "Status",
    "Turn",
    "Upstream",
]
