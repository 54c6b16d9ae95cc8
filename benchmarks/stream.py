"""The jobs table's stream of a local engine, delivered to the function behind it as Lambda's event source delivers it.

`python -m benchmarks.stream` runs until terminated, in an environment like a function's.
"""

import os
import time
from typing import Any, Final

import botocore.session

# As the template has it: many changes within a second are one.
_WINDOW_SECONDS: Final = 1.0
_LARGEST_BATCH: Final = 1_000


class Context:
    """What Lambda says of an invocation."""

    def get_remaining_time_in_millis(self) -> int:
        """Return the function's timeout in template.yaml."""
        return 30_000


def deliver(records: list[dict[str, Any]]) -> None:
    """Hand records over until none comes back."""
    from functions.revision.app import handler  # noqa: PLC0415  # this process alone is an execution environment

    while records:
        failed = {
            failure["itemIdentifier"] for failure in handler({"Records": records}, Context())["batchItemFailures"]
        }
        numbers = [record["dynamodb"]["SequenceNumber"] for record in records]
        records = records[min(map(numbers.index, failed)) :] if failed else []


def main() -> None:
    """Deliver what changes from now on."""
    table = os.environ["BATCH_PROGRESS_JOBS_TABLE"]
    endpoint = os.environ["AWS_ENDPOINT_URL_DYNAMODB"]
    session = botocore.session.Session()
    streams = session.create_client("dynamodbstreams", endpoint_url=endpoint)
    arn = session.create_client("dynamodb").describe_table(TableName=table)["Table"]["LatestStreamArn"]
    iterators: dict[str, str | None] = {}
    kind = "LATEST"
    while True:
        for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
            name = shard["ShardId"]
            if name not in iterators:
                found = streams.get_shard_iterator(StreamArn=arn, ShardId=name, ShardIteratorType=kind)
                iterators[name] = found["ShardIterator"]
        # A shard that opens later is read from its beginning.
        kind = "TRIM_HORIZON"
        for name, iterator in iterators.items():
            if iterator is not None:
                page = streams.get_records(ShardIterator=iterator, Limit=_LARGEST_BATCH)
                iterators[name] = page.get("NextShardIterator")
                # The template filters the same.
                deliver([each for each in page["Records"] if each["dynamodb"]["Keys"]["sk"]["S"].startswith("JOB#")])
        time.sleep(_WINDOW_SECONDS)


if __name__ == "__main__":
    main()
