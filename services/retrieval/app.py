"""The retrieval service as a Ray Serve application; the only file here that imports ray.

`import_path: services.retrieval.app:build`, `args:` the fields of `RetrievalConfig`. Serve calls
the deployment's methods by the last part of the RPC's name: both services' bound methods are
those. A replica is ready when it has replayed the log, not before.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import Any

from ray import serve

from services.retrieval.config import RetrievalConfig
from services.retrieval.embedder import PeerEmbedder
from services.retrieval.file_servicer import FileServicer
from services.retrieval.service import RetrievalService, Stores
from services.retrieval.servicer import RetrievalServicer
from services.runtime import store
from services.runtime.config import Settings, SettingsError, config_from_args
from services.runtime.health import HealthServicer
from services.runtime.logging import configure_logging
from services.runtime.peer import Peer
from services.runtime.pictures import ignore_pillow_warnings
from services.runtime.policy import policy_of
from services.runtime.serve_metrics import ServeRegistry
from services.runtime.serve_replica import graceful_shutdown_timeout_s, leave_in_time

__all__ = ["build"]

SERVICES = ("orrery.v1.RetrievalService", "orrery.v1.FileService")

_LOG = logging.getLogger("orrery.retrieval")


class Retrieval:
    """The deployment: one replica, with all collections in its memory."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it: replaying must not block the loop
        self, config: RetrievalConfig
    ) -> None:
        settings = Settings.from_env()
        configure_logging(settings.log_level, settings.log_format)
        ignore_pillow_warnings()
        if settings.redis_url is None:
            raise SettingsError("REDIS_URL: the retrieval service keeps its log there")
        registry = ServeRegistry({"service": "retrieval", "model": ""})
        self._registry = registry
        peer = self._peer = Peer(config.grpc_target)
        redis = self._redis = store.connect(settings.redis_url.get_secret_value())
        stores = Stores(
            redis=redis,
            data_dir=settings.data_dir,
            embedder=PeerEmbedder(
                peer,
                max_calls=config.work.max_embedding_calls,
                texts_per_call=config.work.texts_per_embedding_call,
            ),
            tokenizers={
                application: settings.model_folder(folder)
                for application, folder in config.embedding_applications.items()
            },
            registry=registry,
        )
        service = await RetrievalService.start(config, stores)
        policy = policy_of("retrieval", SERVICES, settings, registry)
        servicer = self._servicer = RetrievalServicer(config, service, policy)
        health = HealthServicer(
            SERVICES, policy.lifecycle, lambda: service.failure, lambda: service.hindrance
        )
        self._expose(servicer, FileServicer(config, service, policy))
        self.Check, self.List, self.Watch = health.Check, health.List, health.Watch
        self.check_health = health.check_health
        self._leaving = leave_in_time(policy.lifecycle, config.drain_timeout_s)
        _LOG.info("ready", extra={"position": str(service.load().applied)})

    def _expose(self, retrieval: RetrievalServicer, files: FileServicer) -> None:
        self.CreateCollection = retrieval.CreateCollection
        self.ListCollections = retrieval.ListCollections
        self.GetCollection = retrieval.GetCollection
        self.UpdateCollection = retrieval.UpdateCollection
        self.DeleteCollection = retrieval.DeleteCollection
        self.Upsert = retrieval.Upsert
        self.Delete = retrieval.Delete
        self.Get = retrieval.Get
        self.ListDocuments = retrieval.ListDocuments
        self.Search = retrieval.Search
        self.SearchBatch = retrieval.SearchBatch
        self.Rebuild = retrieval.Rebuild
        self.Snapshot = retrieval.Snapshot
        self.GetLoad = retrieval.GetLoad
        self.CreateFile = files.CreateFile
        self.GetFile = files.GetFile
        self.ListFiles = files.ListFiles
        self.DeleteFile = files.DeleteFile
        self.GetFileContent = files.GetFileContent
        self.AttachFile = files.AttachFile
        self.GetAttachment = files.GetAttachment
        self.ListAttachments = files.ListAttachments
        self.DetachFile = files.DetachFile

    def __del__(self) -> Awaitable[None] | None:
        """Serve awaits what this returns once the replica has drained.

        Not a coroutine function: Python calls it again at collection, when nobody awaits, and for
        a replica whose constructor failed.
        """
        servicer: RetrievalServicer | None = self.__dict__.pop("_servicer", None)
        return None if servicer is None else self._close(servicer)

    async def _close(self, servicer: RetrievalServicer) -> None:
        await servicer.close()
        await self._peer.close()
        await self._redis.aclose()
        await self._registry.close()


def build(args: dict[str, Any]) -> serve.Application:
    """The application for `args`, the fields of `RetrievalConfig`. Raises `ValueError`."""
    config = config_from_args(RetrievalConfig, args, "retrieval")
    deployment = serve.deployment(
        name="Retrieval",
        health_check_period_s=3.0,
        graceful_shutdown_timeout_s=graceful_shutdown_timeout_s(config.drain_timeout_s),
    )(Retrieval)
    return deployment.bind(config)
