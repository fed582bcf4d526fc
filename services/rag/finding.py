"""The stages before the prompt: conversation, rewriting, wordings, embedding and search.

Each runs within its share of the time. Knows nothing of how the answer is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from services.rag import queries
from services.rag.planning import Plan
from services.rag.services import (
    Embedder,
    Found,
    Sampling,
    Search,
    SearchQuery,
    Services,
    TextPurpose,
)
from services.rag.timeline import StageRun, Timeline
from services.rag.types import GenerationUsage, Message, Passage, SearchMode, Turn, Vector

__all__ = ["Finder", "Findings"]

MAX_QUERY_TOKENS = 256  # of what a model writes to prepare a search


@dataclass(frozen=True, slots=True)
class Findings:
    """The passages found, best first, and how."""

    passages: tuple[Passage, ...]
    queries: tuple[str, ...]
    notices: tuple[str, ...]
    index_generation: int
    rerank_ns: int


class Finder:
    """Finds the passages for one question."""

    def __init__(
        self, plan: Plan, services: Services, timeline: Timeline, *, embedding_application: str
    ) -> None:
        self._plan = plan
        self._services = services
        self._timeline = timeline
        self._embedding_application = embedding_application
        self._usage = GenerationUsage()
        self._notices: list[str] = []

    @property
    def usage(self) -> GenerationUsage:
        """What the model was asked for besides the answer."""
        return self._usage

    async def find(self, history: Sequence[Turn], *, explain: bool) -> Findings:
        """Raises what the services raise, and `DeadlineExceeded` naming the stage."""
        query = await self._standalone(history)
        wordings = [query, *await self._other_wordings(query)]
        made_up = await self._hypothetical(query)
        vectors = await self._vectors(wordings, made_up)
        found = await self._search(wordings, vectors, explain=explain)
        return Findings(
            passages=tuple(queries.fuse(found.rankings, self._plan.k)),
            queries=tuple(wordings),
            notices=tuple(self._notices),
            index_generation=found.index_generation,
            rerank_ns=found.rerank_ns,
        )

    async def _standalone(self, history: Sequence[Turn]) -> str:
        """The question as it can be searched for without the conversation."""
        question = self._plan.question.text
        if not history:
            return question
        prompts = self._plan.style.query_prompts
        with self._timeline.stage("rewrite") as stage:
            if prompts is None:
                return queries.joined_question(question, history)
            reply = await self._ask_model(prompts.rewrite(question, history), stage)
        if not reply:
            self._notices.append("the model did not rewrite the question: it is searched for as is")
        return reply or question

    async def _other_wordings(self, query: str) -> list[str]:
        count = self._plan.options.num_queries - 1
        prompts = self._plan.style.query_prompts
        if not count or prompts is None:
            return []
        with self._timeline.stage("queries") as stage:
            reply = await self._ask_model(prompts.wordings(query, count), stage)
            wordings = queries.wordings_of(reply, query, count)
            stage.detail = f"{len(wordings)} wordings"
        if len(wordings) < count:
            self._notices.append(f"the model gave {len(wordings)} other wordings of {count}")
        return wordings

    async def _hypothetical(self, query: str) -> str:
        """A passage that the model makes up; empty = not asked for, or it made up none."""
        prompts = self._plan.style.query_prompts
        if not self._plan.options.hyde or prompts is None:
            return ""
        with self._timeline.stage("hyde") as stage:
            reply = await self._ask_model(prompts.hypothetical(query), stage)
        if not reply:
            self._notices.append("the model made up no passage: the question alone is searched for")
        return reply

    async def _vectors(self, wordings: list[str], made_up: str) -> list[Vector | None]:
        """A vector for each wording; None where words alone are searched for."""
        if self._plan.options.search_mode is SearchMode.SPARSE:
            return [None] * len(wordings)
        question = self._plan.question
        with self._timeline.stage("embed") as stage:
            embedder = await stage.run(
                self._services.embedder(
                    question.collection, question.consistency_token, stage.caller
                )
            )
            if embedder is None:  # the search says whether it can do without
                stage.detail = "the collection has no embedding model"
                return [None] * len(wordings)
            if not embedder.application:
                embedder = replace(embedder, application=self._embedding_application)
            vectors = await self._embed(embedder, wordings, TextPurpose.QUERY, stage)
            if made_up:
                passage = await self._embed(embedder, [made_up], TextPurpose.PASSAGE, stage)
                vectors[0] = queries.mean_vector([vectors[0], passage[0]])
            stage.detail = f"{len(wordings) + bool(made_up)} texts"
        return list(vectors)

    async def _embed(
        self, embedder: Embedder, texts: list[str], purpose: TextPurpose, stage: StageRun
    ) -> list[Vector]:
        embedded = await stage.run(self._services.embed(embedder, texts, purpose, stage.caller))
        if embedded.num_truncated:
            self._notices.append(
                f"{embedded.num_truncated} of the queries are longer than the embedding model "
                "reads: their ends are searched for by words alone"
            )
        return list(embedded.vectors)

    async def _search(
        self, wordings: list[str], vectors: list[Vector | None], *, explain: bool
    ) -> Found:
        plan = self._plan
        search = Search(
            collection=plan.question.collection,
            queries=tuple(
                SearchQuery(text, vector) for text, vector in zip(wordings, vectors, strict=True)
            ),
            k=plan.k,
            mode=plan.options.search_mode,
            min_score=plan.min_score,
            consistency_token=plan.question.consistency_token,
            explain=explain,
            rest=plan.options.search,
        )
        with self._timeline.stage("search") as stage:
            found = await stage.run(self._services.search(search, stage.caller))
            stage.detail = f"{sum(map(len, found.rankings))} hits"
        self._timeline.add_inner("search", found.timeline)
        return found

    async def _ask_model(self, chat: Sequence[Message], stage: StageRun) -> str:
        """A short greedy reply, reasoning left out."""
        plan = self._plan
        prompt = await stage.run(self._services.tokenize(plan.application, chat, stage.caller))
        reader = plan.style.reader()
        reply = ""
        pieces = self._services.generate(
            plan.application, prompt.token_ids, Sampling(MAX_QUERY_TOKENS), stage.caller
        )
        usage = GenerationUsage()
        async with aclosing(pieces):
            while (piece := await stage.run(anext(pieces, None))) is not None:
                reply += reader.feed(piece.text).text
                usage = piece.usage
        self._usage += usage
        return (reply + reader.finish().text).strip()
