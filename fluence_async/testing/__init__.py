"""A world to test in: the Fluence Chat API on this machine, with scripts and faults.

```python
from fluence_async.testing import FluenceServer, Reset, Status, Stream

async with FluenceServer() as server:
    server.script(Status(429, retry_after="1"), Stream("Hel", Reset()), "Hello")
    ...  # your program, at server.base_url
    assert len(server.requests) == 3
    await server.wait_until_idle()  # no connection is left
```

`fluence_async.server.faults` lists what a script can say.
"""

from __future__ import annotations

from ..server import Answer, Call, Refusal, Reply, ReplyLike, Responder, Rules, Status, Turn
from ..server.app import Received
from ..server.faults import (
    Close,
    Done,
    End,
    Event,
    Finish,
    Lost,
    Pause,
    Pings,
    Raw,
    Repeat,
    Reset,
    Stall,
    Stream,
    Trickle,
)
from .bomb_table import BOMBS
from .fault import Fault
from .fault_table import FAULTS
from .server import FluenceServer

__all__ = [
    "BOMBS",
    "FAULTS",
    "Answer",
    "Call",
    "Close",
    "Done",
    "End",
    "Event",
    "Fault",
    "Finish",
    "FluenceServer",
    "Lost",
    "Pause",
    "Pings",
    "Raw",
    "Received",
    "Refusal",
    "Repeat",
    "Reply",
    "ReplyLike",
    "Reset",
    "Responder",
    "Rules",
    "Stall",
    "Status",
    "Stream",
    "Trickle",
    "Turn",
]
