"""What a client must know of the local server (`make run`): where it listens and what its tables are called."""

HOST = "127.0.0.1"
REGION = "eu-central-1"
JOBS_TABLE = "JobsTable"
TOKENS_TABLE = "TokensTable"
ISSUER_PATH = "/issuer"
"""Where its issuer of session tokens answers."""
