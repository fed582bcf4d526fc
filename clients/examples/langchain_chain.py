"""LangChain: passages in its own vector store, embedded and read by models of the platform.

    pip install langchain-openai
    python clients/examples/langchain_chain.py

The vectors stay in this process. A retriever over the platform's own search, which keeps documents,
filters and reranks, is in docs/openai-retrieval.md. ORRERY_URL and ORRERY_API_KEY say where the
gateway is and as whom it is asked.
"""

from __future__ import annotations

import os

from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI, OpenAIEmbeddings

URL = os.environ.get("ORRERY_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("ORRERY_API_KEY", "unused")
MODEL = os.environ.get("ORRERY_MODEL", "orrery-llama")
EMBEDDING_MODEL = os.environ.get("ORRERY_EMBEDDING_MODEL", "embedding")

PASSAGES = [
    Document("The Bratarine sails under captain Camamir Dorland.", metadata={"title": "Bratarine"}),
    Document("The Korrus is commanded by Kekin Craman.", metadata={"title": "Korrus"}),
    Document("The Torviford Tower is 502 metres high.", metadata={"title": "Torviford Tower"}),
]
QUESTION = "Who is the captain of the Bratarine?"


def main() -> None:
    embeddings = OpenAIEmbeddings(
        base_url=f"{URL}/v1",
        api_key=API_KEY,
        model=EMBEDDING_MODEL,
        # Otherwise texts are cut into the token ids of OpenAI's models, which are not these.
        check_embedding_ctx_length=False,
    )
    model = ChatOpenAI(
        base_url=f"{URL}/v1", api_key=API_KEY, model=MODEL, temperature=0, max_tokens=32
    )
    store = InMemoryVectorStore.from_documents(PASSAGES, embeddings)
    retriever = store.as_retriever(search_kwargs={"k": 2})
    prompt = ChatPromptTemplate.from_template("{passages}\n\nQuestion: {question}")
    inputs = {"passages": retriever | numbered, "question": RunnablePassthrough()}
    chain = inputs | prompt | model | StrOutputParser()

    for document in retriever.invoke(QUESTION):
        print("found:", document.page_content)
    print("answer: ", end="")
    for piece in chain.stream(QUESTION):
        print(piece, end="", flush=True)
    print()


def numbered(documents: list[Document]) -> str:
    """The passages as the demo model has learnt to read them."""
    return "\n\n".join(
        f"[{number}] {document.metadata['title']}\n{document.page_content}"
        for number, document in enumerate(documents, start=1)
    )


if __name__ == "__main__":
    main()
