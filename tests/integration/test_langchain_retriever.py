"""The examples of `docs/openai-retrieval.md`, run as they stand there."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from langchain_core.documents import Document
from langchain_openai import OpenAIEmbeddings

from tests.integration.conftest import RetrievalApi

PAGE = Path(__file__).resolve().parents[2] / "docs" / "openai-retrieval.md"
URL = "http://127.0.0.1:8000"
CHAT_MODEL = "orrery-llama"
QUESTION = "Who lit the lamp of Orrin Vale?"


def examples() -> str:
    """All of the page's code, in its order: each example goes on from those before it."""
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 5
    return "\n".join(blocks)


@pytest.fixture(scope="module")
def page(retrieval_api: RetrievalApi) -> Iterator[dict[str, Any]]:
    """What the examples leave behind, with the address, and the model, of the API under test."""
    code = examples().replace(URL, retrieval_api.url).replace(CHAT_MODEL, retrieval_api.chat_model)
    module = ModuleType("openai_retrieval_page")
    sys.modules[module.__name__] = module  # pydantic looks a class's annotations up there
    with warnings.catch_warnings():
        # LangChain closes none of the HTTP clients that it opens.
        warnings.simplefilter("ignore", ResourceWarning)
        exec(compile(code, str(PAGE), "exec"), module.__dict__)
        yield module.__dict__
        module.client.vector_stores.delete(module.store.id)
        module.client.files.delete(module.file.id)
        module.client.close()
    del sys.modules[module.__name__]


def test_examples_run_and_find_what_they_put_in(page: dict[str, Any]) -> None:
    assert page["attached"].status == "completed"
    assert "Adela Brome" in page["page"].data[0].content[0].text
    assert page["seen"].metadata == {"checked": "yes"}
    assert len(page["answer"].data) == 2


def test_retriever_returns_documents_that_say_where_they_stand(page: dict[str, Any]) -> None:
    (document,) = page["retriever"].invoke(QUESTION)
    assert isinstance(document, Document)
    assert "Adela Brome" in document.page_content
    place = document.metadata
    assert (place["file_name"], place["document_id"]) == ("lamps.md", page["file"].id)
    assert place["line_start"] >= 1
    assert place["year"] == 1204


async def test_retriever_works_asynchronously(page: dict[str, Any]) -> None:
    found = await page["retriever"].ainvoke(QUESTION)
    assert found == page["retriever"].invoke(QUESTION)


def test_retriever_passes_options_on_and_errors_back(page: dict[str, Any]) -> None:
    late = {"type": "gt", "key": "year", "value": 1300}
    retriever = page["retriever"].model_copy(update={"options": {"filter": late}})
    assert retriever.invoke(QUESTION) == []
    wrong = page["retriever"].model_copy(update={"options": {"k": 1_000_000}})
    with pytest.raises(ValueError, match="k: expected"):
        wrong.invoke(QUESTION)


def test_langchain_embeds_as_the_page_says(retrieval_api: RetrievalApi) -> None:
    with httpx.Client() as client:
        embeddings = OpenAIEmbeddings(
            base_url=retrieval_api.base_url,
            api_key="unused",
            model=retrieval_api.embedding_model,
            check_embedding_ctx_length=False,
            http_client=client,
        )
        query = embeddings.embed_query("a light in the tower")
        lamp, salt = embeddings.embed_documents(["A lamp burns in the tower.", "Salt is cheap."])
    assert len(query) == len(lamp) == len(salt) == 384

    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert dot(query, lamp) > dot(query, salt)
