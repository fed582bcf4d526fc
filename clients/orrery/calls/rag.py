"""Calls of the RAG service."""

from __future__ import annotations

from orrery.calls.common import CallOptions, StreamOpening, begin, call, send_to
from orrery.consistency import ConsistencyTokens
from orrery.methods import ASK, ASK_BATCH, DELETE_CONVERSATION, GET_CONVERSATION, GET_RAG_LOAD
from orrery.parsing.rag import parse_answer_batch, parse_conversation, parse_rag_load
from orrery.requests.common import assign
from orrery.results import AnswerBatch, Conversation, RagLoad
from orrery.settings import ClientSettings
from orrery.steps import Steps
from orrery.v1 import rag_pb2 as pb

__all__ = ["RagCalls"]


class RagCalls:
    """Questions and conversations; reads see the writes that the client knows of."""

    def __init__(self, settings: ClientSettings, tokens: ConsistencyTokens) -> None:
        self._settings = settings
        self._tokens = tokens

    def ask(self, request: pb.AskRequest, token: str | None, options: CallOptions) -> StreamOpening:
        """Opens the stream of one answer; the request is `build_ask`'s."""
        request.consistency_token = self._tokens.for_read(request.collection, token)
        context = begin(self._settings, options)
        steps = send_to(context, self._settings.services.rag, ASK, request)
        return StreamOpening(context.request_id, steps)

    def ask_batch(
        self, request: pb.AskBatchRequest, token: str | None, options: CallOptions
    ) -> Steps[AnswerBatch]:
        """Many questions in one call; the request is `build_ask_batch`'s."""
        request.consistency_token = self._tokens.for_read(request.collection, token)
        name = self._settings.services.rag
        return call(self._settings, name, ASK_BATCH, request, parse_answer_batch, options)

    def conversation(self, conversation: str, options: CallOptions) -> Steps[Conversation]:
        """What a conversation remembers."""
        request, name = pb.GetConversationRequest(), self._settings.services.rag
        assign(request, "conversation_id", conversation, "conversation")
        return call(self._settings, name, GET_CONVERSATION, request, parse_conversation, options)

    def delete_conversation(self, conversation: str, options: CallOptions) -> Steps[None]:
        """Forgets a conversation."""
        request, name = pb.DeleteConversationRequest(), self._settings.services.rag
        assign(request, "conversation_id", conversation, "conversation")
        return call(self._settings, name, DELETE_CONVERSATION, request, lambda _: None, options)

    def load(self, options: CallOptions) -> Steps[RagLoad]:
        """What the service is doing."""
        request, name = pb.RagServiceGetLoadRequest(), self._settings.services.rag
        return call(self._settings, name, GET_RAG_LOAD, request, parse_rag_load, options)
