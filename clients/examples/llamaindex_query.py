"""LlamaIndex: documents in its own index, embedded and read by models of the platform.

    pip install llama-index-core llama-index-llms-openai-like llama-index-embeddings-openai-like
    python clients/examples/llamaindex_query.py

ORRERY_URL and ORRERY_API_KEY say where the gateway is and as whom it is asked.
"""

from __future__ import annotations

import os

from llama_index.core import Document, PromptTemplate, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

URL = os.environ.get("ORRERY_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("ORRERY_API_KEY", "unused")
MODEL = os.environ.get("ORRERY_MODEL", "orrery-llama")
EMBEDDING_MODEL = os.environ.get("ORRERY_EMBEDDING_MODEL", "embedding")

DOCUMENTS = [
    Document(text="The Bratarine sails under captain Camamir Dorland.", id_="bratarine"),
    Document(text="The Korrus is commanded by Kekin Craman.", id_="korrus"),
    Document(text="The Torviford Tower is 502 metres high.", id_="torviford-tower"),
]
QUESTION = "Who is the captain of the Bratarine?"


def main() -> None:
    model = OpenAILike(
        api_base=f"{URL}/v1",
        api_key=API_KEY,
        model=MODEL,
        is_chat_model=True,
        context_window=1024,
        max_tokens=32,
        temperature=0,
    )
    embeddings = OpenAILikeEmbedding(
        api_base=f"{URL}/v1", api_key=API_KEY, model_name=EMBEDDING_MODEL
    )
    index = VectorStoreIndex.from_documents(
        DOCUMENTS,
        embed_model=embeddings,
        transformations=[SentenceSplitter(chunk_size=128, chunk_overlap=0)],
    )
    engine = index.as_query_engine(
        llm=model,
        similarity_top_k=1,
        streaming=True,
        # The demo model knows this form, and not LlamaIndex's own longer one.
        text_qa_template=PromptTemplate("[1] Ships\n{context_str}\n\nQuestion: {query_str}"),
    )

    answer = engine.query(QUESTION)
    for found in answer.source_nodes:
        print(f"found {found.score:.2f}: {found.node.ref_doc_id}: {found.node.get_content()}")
    print("answer: ", end="")
    for piece in answer.response_gen:
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
