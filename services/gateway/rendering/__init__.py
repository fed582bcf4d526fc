"""From the contract's messages to OpenAI's JSON. Knows nothing of requests or of the network."""
