"""The local server (`make run`) as clients see it: its address, its tables, its token issuer."""

HOST = "127.0.0.1"
REGION = "eu-central-1"
JOBS_TABLE = "JobsTable"
TOKENS_TABLE = "TokensTable"
# The issuer of session tokens answers below this path.
ISSUER_PATH = "/issuer"
# The events, one JSON object per line, as they come.
EVENTS_PATH = "/events"
