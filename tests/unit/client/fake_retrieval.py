"""Retrieval, embedding and RAG services of the contract, small, in memory, and to be disturbed.

    async with fake_platform() as platform:
        platform.retrieval.break_after = 3      # the next upload's stream dies after three answers

They keep documents and find them by shared words; requests are in `seen`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask
from grpc_health.v1 import health_pb2_grpc

from orrery.v1 import embedding_pb2, embedding_pb2_grpc, rag_pb2, rag_pb2_grpc, retrieval_pb2_grpc
from orrery.v1 import retrieval_pb2 as pb
from services.runtime import errors as served
from services.runtime.errors import kind_of, to_status
from services.runtime.health import HealthServicer
from services.runtime.lifecycle import Lifecycle

Seen = tuple[str, Any, dict[str, str]]

PNG = b"\x89PNG\r\n\x1a\n"


def fail(context: Any, error: served.OrreryError) -> None:
    """Ends a call as a service does."""
    context.set_trailing_metadata(
        (("grpc-status-details-bin", to_status(error).SerializeToString()),)
    )
    context.set_code(kind_of(error).grpc_status)
    context.set_details(error.message)


@dataclass
class FakeRetrieval(retrieval_pb2_grpc.RetrievalServiceServicer):
    collections: dict[str, dict[str, pb.Document]] = field(default_factory=dict)
    made: dict[str, pb.Collection] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    log: int = 0
    page_size: int = 1000
    break_after: int | None = None  # answers, after which a stream is aborted, once
    break_silently: bool = False  # with status OK instead
    answer_lost: bool = False  # what broke it was written but not answered
    down_for: int = 0  # so many documents are refused because the store is away
    stall_after: int | None = None  # answers, after which a stream waits until it is cancelled
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)  # an upload, in whatever way
    stalled: asyncio.Event = field(default_factory=asyncio.Event)
    lose_answers: int = 0  # so many creations are done and not answered
    refuse_upserts: int = 0  # so many streams are refused at once
    num_streams: int = 0

    def _note(self, request: Any, context: Any) -> None:
        self.seen.append((type(request).__name__, request, dict(context.invocation_metadata())))

    def make(self, name: str, **texts: str) -> None:
        """A collection with these documents."""
        self.made[name] = pb.Collection(name=name)
        self.collections[name] = {
            key: pb.Document(id=key, text=text) for key, text in texts.items()
        }

    def calls(self, name: str) -> list[Any]:
        return [request for kind, request, _ in self.seen if kind == name]

    def _write(self) -> str:
        self.log += 1
        return f"{self.log}-0"

    def _missing(self, name: str, context: Any) -> bool:
        if name in self.collections:
            return False
        fail(context, served.CollectionNotFound(f"no collection {name!r}", field="collection"))
        return True

    async def CreateCollection(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if request.name in self.made and not request.exist_ok:
            return fail(context, served.AlreadyExists("there", field="name"))
        collection = pb.Collection(
            name=request.name,
            title=request.title,
            config=request.config,
            metadata=request.metadata,
            num_documents=len(self.collections.get(request.name, {})),
            fields=[pb.MetadataField(name="year", types=[pb.METADATA_TYPE_NUMBER])],
        )
        self.made.setdefault(request.name, collection)
        self.collections.setdefault(request.name, {})
        if self.lose_answers:
            self.lose_answers -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        return pb.CreateCollectionResponse(collection=collection, consistency_token=self._write())

    async def GetCollection(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if self._missing(request.name, context):
            return None
        return pb.GetCollectionResponse(collection=self.made[request.name])

    async def ListCollections(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        names = sorted(self.made)
        at = int(request.page_token or 0)
        more = at + self.page_size < len(names)
        return pb.ListCollectionsResponse(
            collections=[self.made[name] for name in names[at : at + self.page_size]],
            next_page_token=str(at + self.page_size) if more else "",
        )

    async def UpdateCollection(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if self._missing(request.name, context):
            return None
        if request.HasField("title"):
            self.made[request.name].title = request.title
        if request.HasField("metadata"):
            self.made[request.name].metadata.clear()
            self.made[request.name].metadata.update(request.metadata.values)
        return pb.UpdateCollectionResponse(
            collection=self.made[request.name], consistency_token=self._write()
        )

    async def DeleteCollection(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if self._missing(request.name, context):
            return None
        del self.made[request.name], self.collections[request.name]
        return pb.DeleteCollectionResponse(consistency_token=self._write())

    async def Rebuild(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return pb.RebuildResponse(collection=self.made[request.collection])

    async def Snapshot(self, request: Any, context: Any) -> Any:
        return pb.SnapshotResponse(log_position="5-0", num_collections=len(self.made))

    async def GetLoad(self, request: Any, context: Any) -> Any:
        return pb.RetrievalServiceGetLoadResponse(
            num_collections=len(self.made), num_documents=7, num_chunks=9, log_available=True
        )

    async def Upsert(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for answer in self._upsert(requests, context):
                yield answer
        finally:
            self.ended.set()

    async def _upsert(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        self.num_streams += 1
        if self.refuse_upserts:
            self.refuse_upserts -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "starting")
        answered = 0
        async for request in requests:
            self._note(request, context)
            if self._missing(request.collection, context):
                return
            if self.stall_after == answered:
                await self._stall()
            if self.break_after == answered:
                self.break_after = None
                if self.answer_lost:
                    self._put(request)
                if self.break_silently:
                    return
                await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
            yield self._put(request)
            answered += 1

    async def _stall(self) -> None:
        self.stalled.set()
        try:
            await asyncio.sleep(60)
        finally:
            self.cancelled.set()

    def _put(self, request: pb.UpsertRequest) -> pb.UpsertResponse:
        document, documents = request.document, self.collections[request.collection]
        answer = pb.UpsertResponse(document_id=document.id, num_chunks=1)
        problem: served.OrreryError | None = None
        if self.down_for:
            self.down_for -= 1
            problem = served.DependencyDown("the log is away")
        elif b"\0" in document.file.data and not document.file.data.startswith(PNG):
            problem = served.InvalidRequest("binary", field="file")
        if problem is not None:
            answer.status, answer.num_chunks = pb.UPSERT_STATUS_FAILED, 0
            answer.error.reason = kind_of(problem).reason
            answer.error.message = problem.message
            return answer
        known = documents.get(document.id)
        answer.status = pb.UPSERT_STATUS_UNCHANGED
        if known != document:
            answer.status = pb.UPSERT_STATUS_REPLACED if known else pb.UPSERT_STATUS_ADDED
            documents[document.id] = document
            answer.consistency_token = self._write()
        return answer

    async def Delete(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        documents = self.collections[request.collection]
        gone = [documents.pop(name) for name in request.document_ids if name in documents]
        return pb.DeleteResponse(num_deleted=len(gone), consistency_token=self._write())

    async def Get(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        documents = self.collections[request.collection]
        found = [name for name in request.document_ids if name in documents]
        return pb.GetResponse(documents=[self._stored(documents[name]) for name in found])

    async def ListDocuments(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        names = sorted(self.collections[request.collection])
        at = int(request.page_token or 0)
        more = at + self.page_size < len(names)
        documents = self.collections[request.collection]
        return pb.ListDocumentsResponse(
            documents=[self._stored(documents[n]) for n in names[at : at + self.page_size]],
            next_page_token=str(at + self.page_size) if more else "",
        )

    def _stored(self, document: pb.Document) -> pb.StoredDocument:
        return pb.StoredDocument(
            id=document.id, title=document.title, metadata=document.metadata, num_chunks=1
        )

    async def Search(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        if self._missing(request.collection, context):
            return None
        image, k = request.query.image.data, request.options.k or 10
        hits = self._found(request.collection, request.query.text, k, image)
        return pb.SearchResponse(request_id="r", hits=hits, index_generation=self.log)

    async def SearchBatch(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        results = []
        for query in request.queries:
            if query.text == "fail":
                error = pb.ItemError(reason="INVALID_REQUEST", message="no", field="text")
                results.append(pb.SearchResult(error=error))
            else:
                k = request.options.k or 10
                hits = self._found(request.collection, query.text, k, query.image.data)
                results.append(pb.SearchResult(hits=hits))
        return pb.SearchBatchResponse(results=results)

    def _found(self, collection: str, text: str, k: int, image: bytes = b"") -> list[pb.Hit]:
        words = set(text.lower().split())
        scored = []
        for document in self.collections[collection].values():
            if image and document.file.data == image:
                scored.append(_picture_hit(document))
                continue
            content = document.text or document.file.data.decode(errors="replace")
            shared = len(words & set(content.lower().replace(".", "").split()))
            if shared:
                chunk = pb.Chunk(
                    id=f"{document.id}#0",
                    document_id=document.id,
                    document_title=document.title,
                    text=content,
                    end=len(content),
                    line_start=1,
                    line_end=1,
                    metadata=document.metadata,
                )
                scored.append(pb.Hit(chunk=chunk, score=shared, sparse_score=shared))
        return sorted(scored, key=lambda hit: (-hit.score, hit.chunk.id))[:k]


def _picture_hit(document: pb.Document) -> pb.Hit:
    """As the service tells of a picture: a chunk without text, its size among the metadata."""
    size = {"image_width": 64.0, "image_height": 48.0}
    chunk = pb.Chunk(
        id=f"{document.id}#0",
        document_id=document.id,
        media_type="image/png",
        metadata={name: pb.MetadataValue(number_value=value) for name, value in size.items()},
    )
    return pb.Hit(chunk=chunk, score=1.0, dense_score=1.0)


@dataclass
class FakeEmbedding(embedding_pb2_grpc.EmbeddingServiceServicer):
    seen: list[Seen] = field(default_factory=list)

    async def EmbedText(self, request: Any, context: Any) -> Any:
        self.seen.append(("embed", request, dict(context.invocation_metadata())))
        vectors = [
            embedding_pb2.Embedding(values=[float(len(each.text)), 0.5], num_tokens=3)
            for each in request.inputs
        ]
        return embedding_pb2.EmbedTextResponse(model="mini", embeddings=vectors)

    async def Rerank(self, request: Any, context: Any) -> Any:
        self.seen.append(("rerank", request, dict(context.invocation_metadata())))
        results = [
            embedding_pb2.RerankResult(index=i, score=len(text))
            for i, text in enumerate(request.passages)
        ]
        best = sorted(results, key=lambda each: -each.score)
        return embedding_pb2.RerankResponse(
            model="mini", results=best, method=embedding_pb2.RERANK_METHOD_BI_ENCODER
        )

    async def EmbedImage(self, request: Any, context: Any) -> Any:
        self.seen.append(("embed_image", request, dict(context.invocation_metadata())))
        for i, image in enumerate(request.images):
            if not image.data.startswith(PNG):
                problem = served.InvalidRequest("not a picture", field=f"images[{i}]")
                return fail(context, problem)
        vectors = [embedding_pb2.Embedding(values=[len(i.data), 1]) for i in request.images]
        return embedding_pb2.EmbedImageResponse(model="tiny-clip", embeddings=vectors)

    async def Classify(self, request: Any, context: Any) -> Any:
        """The label whose length is nearest to the picture's."""
        self.seen.append(("classify", request, dict(context.invocation_metadata())))
        results = []
        for image in request.images:
            away = [-abs(len(label) - len(image.data)) for label in request.labels]
            order = sorted(range(len(away)), key=lambda i: -away[i])[: request.top_n or len(away)]
            scores = [
                embedding_pb2.LabelScore(
                    index=i, label=request.labels[i], probability=1 / (n + 2), similarity=away[i]
                )
                for n, i in enumerate(order)
            ]
            results.append(embedding_pb2.Classification(scores=scores))
        return embedding_pb2.ClassifyResponse(model="tiny-clip", results=results)

    async def Similarity(self, request: Any, context: Any) -> Any:
        """1 where both have as many characters or bytes."""
        self.seen.append(("similarity", request, dict(context.invocation_metadata())))

        def size(each: Any) -> int:
            return len(each.image.data) if each.HasField("image") else len(each.text)

        rows = [
            embedding_pb2.SimilarityRow(cosines=[float(size(a) == size(b)) for b in request.right])
            for a in request.left
        ]
        return embedding_pb2.SimilarityResponse(model="tiny-clip", rows=rows)

    async def GetEmbeddingModel(self, request: Any, context: Any) -> Any:
        return embedding_pb2.GetEmbeddingModelResponse(
            model="mini", dimensions=2, aliases=["m"], dtype="bfloat16"
        )

    async def GetLoad(self, request: Any, context: Any) -> Any:
        return embedding_pb2.EmbeddingServiceGetLoadResponse(
            num_running=2, num_waiting_inputs=4, cache_hits=1, cache_misses=3, cache_available=True
        )


@dataclass
class FakeRag(rag_pb2_grpc.RagServiceServicer):
    """Answers with the last word of the best passage that shares two words with the question."""

    retrieval: FakeRetrieval
    seen: list[Seen] = field(default_factory=list)
    cut_short: bool = False
    truncated: bool = False

    def _answer(self, request: Any) -> tuple[rag_pb2.Passages, rag_pb2.AskResult]:
        question = request.question.rstrip("?").lower()
        hits = self.retrieval._found(request.collection, question, request.options.k or 8)
        passages = rag_pb2.Passages(hits=hits, queries=[request.question])
        result = rag_pb2.AskResult(
            request_id="r",
            agreement=1,
            conversation_id=request.conversation_id,
            truncated=self.truncated,
        )
        if not hits or hits[0].score < 2:
            result.answer = "The documents do not say."
            result.abstention = rag_pb2.ABSTENTION_REASON_NO_PASSAGE
            return passages, result
        chunk = hits[0].chunk
        result.answer = chunk.text.rstrip(".\n").split()[-1]
        passages.used.append(0)
        result.citations.add(
            answer_end=len(result.answer),
            chunk_id=chunk.id,
            document_id=chunk.document_id,
            file_name=chunk.document_id,
            line_start=1,
            line_end=1,
            quote=chunk.text.strip(),
            score=0.9,
        )
        if request.explain:
            result.timeline.add(stage="search", start_ns=0, duration_ns=2_000_000, detail="1 hit")
            result.timeline.add(stage="generate", start_ns=2_000_000, duration_ns=8_000_000)
        return passages, result

    async def Ask(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.seen.append(("ask", request, dict(context.invocation_metadata())))
        if request.collection not in self.retrieval.collections:
            fail(context, served.CollectionNotFound("no such collection", field="collection"))
            return
        passages, result = self._answer(request)
        yield rag_pb2.AskResponse(passages=passages)
        half = len(result.answer) // 2
        for text in (result.answer[:half], result.answer[half:]):
            yield rag_pb2.AskResponse(delta=rag_pb2.AnswerDelta(text=text))
        if not self.cut_short:
            yield rag_pb2.AskResponse(result=result)

    async def AskBatch(self, request: Any, context: Any) -> Any:
        self.seen.append(("batch", request, dict(context.invocation_metadata())))
        items = []
        for question in request.questions:
            if not question:
                error = pb.ItemError(reason="INVALID_REQUEST", message="empty", field="question")
                items.append(rag_pb2.AskBatchItem(error=error))
                continue
            one = rag_pb2.AskRequest(question=question, collection=request.collection)
            passages, result = self._answer(one)
            items.append(rag_pb2.AskBatchItem(passages=passages, result=result))
        return rag_pb2.AskBatchResponse(items=items)

    async def GetConversation(self, request: Any, context: Any) -> Any:
        if request.conversation_id != "known":
            return fail(context, served.ResourceNotFound("no such conversation"))
        turn = rag_pb2.ConversationTurn(question="q", answer="a")
        return rag_pb2.GetConversationResponse(turns=[turn], ttl_s=60)

    async def DeleteConversation(self, request: Any, context: Any) -> Any:
        return rag_pb2.DeleteConversationResponse()

    async def GetLoad(self, request: Any, context: Any) -> Any:
        return rag_pb2.RagServiceGetLoadResponse(
            num_running=3, num_running_by_stage={"generate": 2, "search": 1}
        )


@dataclass
class FakePlatform:
    """`applications`: what Ray Serve would list; None = a plain gRPC server, without Serve."""

    target: str
    retrieval: FakeRetrieval
    embedding: FakeEmbedding
    rag: FakeRag
    applications: tuple[str, ...] | None = None


@asynccontextmanager
async def fake_platform() -> AsyncIterator[FakePlatform]:
    """Starts the three services on a free loopback port."""
    server = grpc.aio.server()
    retrieval, embedding = FakeRetrieval(), FakeEmbedding()
    rag = FakeRag(retrieval)
    retrieval_pb2_grpc.add_RetrievalServiceServicer_to_server(retrieval, server)
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(embedding, server)
    rag_pb2_grpc.add_RagServiceServicer_to_server(rag, server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer((), Lifecycle()), server)
    port = server.add_insecure_port("127.0.0.1:0")
    platform = FakePlatform(f"127.0.0.1:{port}", retrieval, embedding, rag)

    async def list_applications(request: FieldMask, context: Any) -> Any:
        if platform.applications is None:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no such method")
        return FieldMask(paths=platform.applications)

    handler = grpc.unary_unary_rpc_method_handler(
        list_applications,
        request_deserializer=FieldMask.FromString,
        response_serializer=FieldMask.SerializeToString,
    )
    methods = {"ListApplications": handler}
    serve = grpc.method_handlers_generic_handler("ray.serve.RayServeAPIService", methods)
    server.add_generic_rpc_handlers((serve,))
    await server.start()
    try:
        yield platform
    finally:
        await server.stop(grace=None)
