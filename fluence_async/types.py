"""The API's nouns as msgspec Structs: what is sent and what comes back, data only.

Every documented field of `POST /v1/chat/completions` is here, and every field of the OpenAI
chat wire that servers really send. Fields that a server adds are ignored; `keep_raw=True`
keeps them in `.raw`. Wire quirks (null for a list, "0" for 0) are mended in the codec, so
that these types can say what is meant.

Rejected: pydantic models (2 to 20 times the cost per chunk), and a tagged union over `role`
(an unknown role of a newer server would make the whole answer undecodable).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from .meta import Meta

__all__ = [
    "ChatCompletion",
    "ChatCompletionChunk",
    "Choice",
    "ChunkChoice",
    "CompletionTokensDetails",
    "ContentPart",
    "Delta",
    "FunctionCall",
    "FunctionCallDelta",
    "FunctionDefinition",
    "ImageURL",
    "InputAudio",
    "JSONSchema",
    "Message",
    "MessageLike",
    "PromptTokensDetails",
    "ResponseFormat",
    "Role",
    "StreamOptions",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "Usage",
]

Role = Literal["system", "developer", "user", "assistant", "tool", "function"]
"""Who speaks."""


class _Wire(msgspec.Struct, omit_defaults=True):
    """A noun that the API sends or takes: fields left at their default are not sent."""


class _Leaf(_Wire, gc=False):
    """A noun of the hot path: it cannot be part of a reference cycle."""


class KeepsRaw(_Wire, dict=True):
    """A noun that holds more than its fields, `raw` and the like, in pickles too."""

    def __reduce__(self) -> tuple[Any, ...]:
        reduced = super().__reduce__()
        assert isinstance(reduced, tuple)
        return reduced[0], reduced[1], vars(self)


# ─── messages ─────────────────────────────────────────────────────────────────────────────


class ImageURL(_Wire, kw_only=True):
    """An image by address (`https:` or `data:`); `detail` is `low`, `high` or `auto`."""

    url: str
    detail: str | None = None


class InputAudio(_Wire, kw_only=True):
    """Audio as base64 `data` in `format` (`wav` or `mp3`)."""

    data: str
    format: str


class ContentPart(_Wire, kw_only=True):
    """One part of a message's content: `type` says which of the other fields is set."""

    type: str
    text: str | None = None
    image_url: ImageURL | None = None
    input_audio: InputAudio | None = None
    file: dict[str, Any] | None = None
    refusal: str | None = None


class FunctionCall(_Leaf, kw_only=True, omit_defaults=False):
    """The function that the model wants called; `arguments` is JSON text, not checked."""

    name: str = ""
    arguments: str = ""


class ToolCall(_Wire, kw_only=True, omit_defaults=False):
    """One tool call in an answer. Its result goes back with the same `id`."""

    id: str = ""
    type: str = "function"
    function: FunctionCall = msgspec.field(default_factory=FunctionCall)


class Message(_Wire, kw_only=True):
    """One message of a conversation, sent or received.

    Attributes:
        role: `system`, `developer`, `user`, `assistant` or `tool`.
        content: Text, or a list of parts (text, images, audio); None beside tool calls.
        name: Who of several participants with one role.
        tool_calls: What the assistant wants called.
        tool_call_id: In a `tool` message: the call whose result this is.
        refusal: Why the model would not answer.
        reasoning_content: The model's reasoning, where the server sends it.
        reasoning: The same by the name that vLLM and Ollama have for it; a message that is sent
            back keeps its server's own.
        annotations: Citations and the like, as the server sends them.
        audio: Audio output, as the server sends it.
    """

    role: str = ""
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    annotations: list[dict[str, Any]] | None = None
    audio: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The text of `content`, its text parts joined; "" where there is none."""
        if self.content is None:
            return ""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text or "" for part in self.content)


MessageLike: TypeAlias = Message | Mapping[str, Any]
"""What may stand in `messages`: a `Message`, or a mapping with the same keys."""


# ─── tools and response formats ───────────────────────────────────────────────────────────


class FunctionDefinition(_Wire, kw_only=True):
    """A function that the model may call; `parameters` is its JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(_Wire, kw_only=True, omit_defaults=False):
    """A tool offered to the model."""

    function: FunctionDefinition
    type: str = "function"


class JSONSchema(_Wire, kw_only=True):
    """The schema of a typed answer."""

    name: str
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormat(_Wire, kw_only=True):
    """The form of the answer: `type` is `text`, `json_object` or `json_schema`."""

    type: str
    json_schema: JSONSchema | None = None


class StreamOptions(_Wire, kw_only=True):
    """`include_usage`: let the last chunk carry the usage (asked for by default)."""

    include_usage: bool | None = None


# ─── usage ────────────────────────────────────────────────────────────────────────────────


class PromptTokensDetails(_Leaf, kw_only=True):
    """Of the prompt's tokens: how many came from the server's cache, how many were audio."""

    cached_tokens: int | None = None
    audio_tokens: int | None = None


class CompletionTokensDetails(_Leaf, kw_only=True):
    """Of the completion's tokens: reasoning, audio, and predicted ones taken or not."""

    reasoning_tokens: int | None = None
    audio_tokens: int | None = None
    accepted_prediction_tokens: int | None = None
    rejected_prediction_tokens: int | None = None


class Usage(_Leaf, kw_only=True):
    """Tokens that one call cost, as the server counted them.

    Attributes:
        prompt_tokens: Of all messages that were sent, tools and schemas included.
        completion_tokens: Of the answer, all choices together, reasoning included.
        total_tokens: Of both.
        prompt_tokens_details: Which of the prompt's were cached, or audio; None where the server
            does not say.
        completion_tokens_details: Which of the answer's were reasoning, audio, or predicted; None
            where the server does not say.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: PromptTokensDetails | None = None
    completion_tokens_details: CompletionTokensDetails | None = None


# ─── the whole answer ─────────────────────────────────────────────────────────────────────


class Choice(_Wire, kw_only=True):
    """One of the answers: `finish_reason` is `stop`, `length`, `tool_calls`, `content_filter`
    or whatever a newer server says."""

    index: int = 0
    message: Message = msgspec.field(default_factory=lambda: Message(role="assistant"))
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletion(KeepsRaw, kw_only=True):
    """An answer, whole.

    Attributes:
        id: The server's name for it.
        object: `chat.completion`.
        created: When, in seconds since the epoch.
        model: The model that answered.
        choices: The answers; one unless `n` asked for more.
        usage: The tokens that it cost; None where the server did not say.
        error: Always None: a body with an error is raised and not returned.
    """

    id: str = ""
    object: str = "chat.completion"
    created: int = 0
    model: str = ""
    choices: list[Choice] = []
    usage: Usage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    error: None = None

    @property
    def message(self) -> Message:
        """The first choice's message, fit to be appended to `messages`; empty if there is none."""
        return self.choices[0].message if self.choices else Message(role="assistant")

    @property
    def text(self) -> str:
        """The first choice's text; "" where there is none."""
        return self.choices[0].message.text if self.choices else ""

    @property
    def finish_reason(self) -> str | None:
        """Why the first choice ended; None if there is none."""
        return self.choices[0].finish_reason if self.choices else None

    @property
    def tool_calls(self) -> list[ToolCall]:
        """What the first choice wants called; empty where it wants nothing."""
        return (self.choices[0].message.tool_calls or []) if self.choices else []

    @property
    def meta(self) -> Meta:
        """Request id, attempts, times: what is known of the call beside its answer."""
        meta: Meta = vars(self).setdefault("meta", Meta())
        return meta

    @property
    def raw(self) -> dict[str, Any] | None:
        """The answer as the server sent it, unknown fields too; None without `keep_raw=True`."""
        return vars(self).get("raw")


# ─── one chunk of a stream ────────────────────────────────────────────────────────────────


class FunctionCallDelta(_Leaf, kw_only=True):
    """What a chunk adds to a function call."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(_Leaf, kw_only=True):
    """What a chunk adds to the tool call `index`; a missing index means the next one."""

    index: int | None = None
    id: str | None = None
    type: str | None = None
    function: FunctionCallDelta | None = None


class Delta(_Leaf, kw_only=True):
    """What a chunk adds to a message."""

    content: str | None = None
    role: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCallDelta] | None = None


class ChunkChoice(_Leaf, kw_only=True):
    """What a chunk adds to the choice `index`."""

    index: int = 0
    delta: Delta | None = None
    finish_reason: str | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletionChunk(_Leaf, kw_only=True):
    """One chunk of a streamed answer.

    Attributes:
        choices: What each choice gains; may be empty, as in the chunk that carries the usage.
        usage: The tokens that the call cost, in the last chunk.
        error: Always None: an event with an error is raised and not yielded.
        message: The same: so some servers begin an error.
    """

    id: str = ""
    object: str = "chat.completion.chunk"
    created: int = 0
    model: str = ""
    choices: list[ChunkChoice] = []
    usage: Usage | None = None
    system_fingerprint: str | None = None
    service_tier: str | None = None
    error: None = None
    message: None = None

    @property
    def text(self) -> str:
        """What the first choice's text gains; "" where nothing."""
        for choice in self.choices:
            if not choice.index and (delta := choice.delta) is not None:
                return delta.content or ""
        return ""

    @property
    def raw(self) -> dict[str, Any] | None:
        """The chunk as the server sent it, unknown fields too; None without `keep_raw=True`."""
        return getattr(self, "__dict__", {}).get("raw")
