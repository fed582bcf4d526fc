#!/usr/bin/env bash
# Plain curl: which models there are, a chat at once and as it is written, embeddings, an answer from
# documents.
#
#     clients/examples/curl.sh
#
# ORRERY_URL and ORRERY_API_KEY say where the gateway is and as whom it is asked.
set -euo pipefail

url=${ORRERY_URL:-http://127.0.0.1:8000}
model=${ORRERY_MODEL:-orrery-llama}
embedding_model=${ORRERY_EMBEDDING_MODEL:-embedding}
collection=example-$$

# The cookie makes a read wait for the writes before it, whichever replica answers.
cookies=$(mktemp)
clean_up() {
    call --request DELETE "$url/v1/collections/$collection" >/dev/null || true
    rm -f "$cookies"
}
trap clean_up EXIT

# Prints what the server says, also of an error; then it fails.
call() {
    curl --silent --show-error --fail-with-body --no-buffer \
        --cookie "$cookies" --cookie-jar "$cookies" \
        --header "authorization: Bearer ${ORRERY_API_KEY:-unused}" \
        --header 'content-type: application/json' "$@"
    echo
}

chat() {
    cat <<JSON
{
  "model": "$model",
  "messages": [{"role": "user", "content": "[1] Bratarine\nThe Bratarine sails under captain Camamir Dorland.\n\nQuestion: Who is the captain of the Bratarine?"}],
  "temperature": 0,
  "max_completion_tokens": 32,
  "stream": $1
}
JSON
}

echo '# models'
call "$url/v1/models"

echo '# a chat'
chat false | call --data-binary @- "$url/v1/chat/completions"

echo '# the same as it is written: server-sent events'
chat true | call --data-binary @- "$url/v1/chat/completions"

echo '# embeddings, cut to 4 numbers'
call "$url/v1/embeddings" --data-binary @- <<JSON
{"model": "$embedding_model", "input": ["A lamp burns in the tower."], "dimensions": 4}
JSON

echo '# a collection of one document'
call "$url/v1/collections" --data-binary "{\"name\": \"$collection\"}"
call "$url/v1/collections/$collection/documents" --data-binary @- <<'JSON'
{"documents": [{"id": "bratarine", "text": "The Bratarine sails under captain Camamir Dorland."}]}
JSON

echo '# an answer from it'
call "$url/v1/rag/ask" --data-binary @- <<JSON
{"collection": "$collection", "question": "Who is the captain of the Bratarine?"}
JSON
