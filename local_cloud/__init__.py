"""A cloud on one machine: the function behind HTTP, DynamoDB, the stream, the token issuer. Only in a checkout."""
