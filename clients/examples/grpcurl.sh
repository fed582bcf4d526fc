#!/usr/bin/env bash
# grpcurl (https://github.com/fullstorydev/grpcurl): the gRPC contract from the shell, without stubs.
#
#     clients/examples/grpcurl.sh
#
# The `application` says which service answers. The services tell their contract themselves (gRPC
# reflection), so no .proto file is needed; it is asked with the same metadata.
# ORRERY_TARGET and ORRERY_API_KEY say where the platform is and as whom it is asked,
# ORRERY_APPLICATION which of its applications.
set -euo pipefail

target=${ORRERY_TARGET:-127.0.0.1:9000}
application=${ORRERY_APPLICATION:-llama}
options=(-plaintext -H "application: $application")
if [[ -n ${ORRERY_API_KEY:-} ]]; then
    options+=(-H "authorization: Bearer $ORRERY_API_KEY")
fi

echo '# the services of the application'
grpcurl "${options[@]}" "$target" list

echo '# is it well?'
grpcurl "${options[@]}" -d '{"service": "orrery.v1.GenerationService"}' \
    "$target" grpc.health.v1.Health/Check

echo '# its model'
grpcurl "${options[@]}" "$target" orrery.v1.GenerationService/GetModel

echo '# a text, message by message'
grpcurl "${options[@]}" -max-time 60 -d '{
    "prompt": {"chat": {"messages": [{
        "role": "ROLE_USER",
        "content": "[1] Bratarine\nThe Bratarine sails under captain Camamir Dorland.\n\nQuestion: Who is the captain of the Bratarine?"
    }]}},
    "sampling": {"maxTokens": 32, "temperature": 0}
}' "$target" orrery.v1.GenerationService/Generate

echo '# what it is doing'
grpcurl "${options[@]}" "$target" orrery.v1.GenerationService/GetLoad
