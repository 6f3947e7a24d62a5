"""A world to test in: the Fluence Chat API on this machine, with scripts and faults.

```python
from fluence_async.testing import FluenceServer, Reset, Status, Stream

async with FluenceServer() as server:
    server.script(Status(429, retry_after="1"), Stream("Hel", Reset()), "Hello")
    ...  # your program, at server.base_url
    server.assert_requested(3)
    await server.wait_until_idle()  # no connection is left
```

`fluence_async.server.faults` and `.hostile` list what a script can say, `.control` how another
language says it. pytest's fixtures `fluence_server` and `fluence_session` are in `pytest_fluence`.
"""

from __future__ import annotations

from ..server import (
    Answer,
    Call,
    Chaos,
    Refusal,
    Replay,
    Reply,
    ReplyLike,
    Responder,
    Rules,
    Status,
    Turn,
    Upstream,
)
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
from ..server.hostile import Bomb, Corrupt, Redirect, Shuffle, Truncate
from ..server.received import Received
from .bomb_table import BOMBS
from .fault import Fault
from .fault_table import FAULTS
from .network import NetworkForbidden, forbid_network
from .server import FluenceServer

__all__ = [
    "BOMBS",
    "FAULTS",
    "Answer",
    "Bomb",
    "Call",
    "Chaos",
    "Close",
    "Corrupt",
    "Done",
    "End",
    "Event",
    "Fault",
    "Finish",
    "FluenceServer",
    "Lost",
    "NetworkForbidden",
    "Pause",
    "Pings",
    "Raw",
    "Received",
    "Redirect",
    "Refusal",
    "Repeat",
    "Replay",
    "Reply",
    "ReplyLike",
    "Reset",
    "Responder",
    "Rules",
    "Shuffle",
    "Stall",
    "Status",
    "Stream",
    "Trickle",
    "Truncate",
    "Turn",
    "Upstream",
    "forbid_network",
]
