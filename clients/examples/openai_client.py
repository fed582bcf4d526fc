"""OpenAI's own client: which models there are, a chat as it is written, embeddings, a search.

    pip install openai
    python clients/examples/openai_client.py

ORRERY_URL and ORRERY_API_KEY say where the gateway is and as whom it is asked.
"""

from __future__ import annotations

import os

from openai import OpenAI

URL = os.environ.get("ORRERY_URL", "http://127.0.0.1:8000")
API_KEY = os.environ.get("ORRERY_API_KEY", "unused")
MODEL = os.environ.get("ORRERY_MODEL", "orrery-llama")
EMBEDDING_MODEL = os.environ.get("ORRERY_EMBEDDING_MODEL", "embedding")

PASSAGE = "The Bratarine sails under captain Camamir Dorland. She has a crew of 1277 people."
QUESTION = "Who is the captain of the Bratarine?"


def main() -> None:
    with OpenAI(base_url=f"{URL}/v1", api_key=API_KEY) as client:
        print("models:", ", ".join(model.id for model in client.models.list()))
        chat(client)
        compare(client)
        search(client)


def chat(client: OpenAI) -> None:
    """The tokens are printed as they come; the last message tells what they cost."""
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": f"[1] Bratarine\n{PASSAGE}\n\nQuestion: {QUESTION}"}],
        temperature=0,
        max_completion_tokens=32,
        stream=True,
        stream_options={"include_usage": True},
    )
    print("chat: ", end="")
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        elif chunk.usage:
            print(f" ({chunk.usage.completion_tokens} tokens)")


def compare(client: OpenAI) -> None:
    """Vectors have length 1, so that their product is the cosine."""
    texts = [QUESTION, PASSAGE, "Salt is cheap in the harbour."]
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=texts)
    question, *others = (each.embedding for each in answer.data)
    for text, other in zip(texts[1:], others, strict=True):
        similarity = sum(a * b for a, b in zip(question, other, strict=True))
        print(f"similarity {similarity:.2f}: {text}")


def search(client: OpenAI) -> None:
    """A vector store is made, filled with one file, searched, and removed again."""
    store = client.vector_stores.create(name="Ships")
    file = client.files.create(file=("ships.md", PASSAGE.encode()), purpose="assistants")
    try:
        client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
        for found in client.vector_stores.search(store.id, query=QUESTION):
            print(f"found {found.score:.2f}: {found.filename}: {found.content[0].text}")
    finally:
        client.vector_stores.delete(store.id)
        client.files.delete(file.id)


if __name__ == "__main__":
    main()
