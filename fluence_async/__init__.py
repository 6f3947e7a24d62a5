"""The async Python SDK for the Fluence Chat API.

```python
from fluence_async import FluenceSession

async with FluenceSession() as fluence:
    answer = await fluence.chat.completions.create(model="fluence-chat", messages="Hello!")
    print(answer.text)
```
"""

from ._sansio.bucket import DOCUMENTED_LIMITS, RateLimit
from ._sansio.budget import Budget
from ._sansio.metering import Price, UsageTotals
from .completions import Chat, ChatStreamContext, Completions
from .errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BadChunkError,
    BadRequestError,
    BudgetExceededError,
    ConflictError,
    FluenceError,
    InternalServerError,
    LimitWaitError,
    NotFoundError,
    ParseError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    StreamError,
    StreamInterruptedError,
    StreamServerError,
    StreamTimeoutError,
    TLSError,
    ToolError,
    TurnLimitError,
    UnprocessableEntityError,
)
from .limiter import Limiter, Permit
from .meta import Attempt, Meta, RateLimitSnapshot
from .options import CallOptions, ChatParams, CompletionParams, RetryPolicy, Timeout
from .parsed import ParsedCompletion, ParsedField
from .session import FluenceSession
from .stream import ChatStream, TextStream
from .tool_events import (
    ChunkReceived,
    ToolCallCompleted,
    ToolCallGrew,
    ToolCallStarted,
    ToolFailed,
    ToolReturned,
    ToolRunEvent,
    TurnFinished,
)
from .tool_run import ToolRun
from .tools import FunctionTool, tool
from .typed_answer import TypedAnswer
from .types import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    ContentPart,
    Delta,
    FunctionCall,
    FunctionDefinition,
    JSONSchema,
    Message,
    ResponseFormat,
    Tool,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from .usage import BudgetState, UsageMeter, UsageSnapshot

__version__ = "0.1.0"

__all__ = [
    "DOCUMENTED_LIMITS",
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "Attempt",
    "AuthenticationError",
    "BadChunkError",
    "BadRequestError",
    "Budget",
    "BudgetExceededError",
    "BudgetState",
    "CallOptions",
    "Chat",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatParams",
    "ChatStream",
    "ChatStreamContext",
    "Choice",
    "ChunkChoice",
    "ChunkReceived",
    "CompletionParams",
    "Completions",
    "ConflictError",
    "ContentPart",
    "Delta",
    "FluenceError",
    "FluenceSession",
    "FunctionCall",
    "FunctionDefinition",
    "FunctionTool",
    "InternalServerError",
    "JSONSchema",
    "LimitWaitError",
    "Limiter",
    "Message",
    "Meta",
    "NotFoundError",
    "ParseError",
    "ParsedCompletion",
    "ParsedField",
    "PermissionDeniedError",
    "Permit",
    "Price",
    "QuotaExceededError",
    "RateLimit",
    "RateLimitError",
    "RateLimitSnapshot",
    "ResponseError",
    "ResponseFormat",
    "RetryPolicy",
    "StreamError",
    "StreamInterruptedError",
    "StreamServerError",
    "StreamTimeoutError",
    "TLSError",
    "TextStream",
    "Timeout",
    "Tool",
    "ToolCall",
    "ToolCallCompleted",
    "ToolCallDelta",
    "ToolCallGrew",
    "ToolCallStarted",
    "ToolError",
    "ToolFailed",
    "ToolReturned",
    "ToolRun",
    "ToolRunEvent",
    "TurnFinished",
    "TurnLimitError",
    "TypedAnswer",
    "UnprocessableEntityError",
    "Usage",
    "UsageMeter",
    "UsageSnapshot",
    "UsageTotals",
    "__version__",
    "tool",
]
