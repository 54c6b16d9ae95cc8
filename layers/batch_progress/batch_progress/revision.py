"""Count the changes of a batch's jobs, so that an entity tag from before a change no longer matches.

Since a count, at most as many jobs have changed as the revision has risen by: a batch with more pending jobs than that
has not finished. Counting a change twice or out of order does no harm: the batch is
only counted again earlier (docs/decisions/0003-revision.md, 0013-kept-counts.md).
"""

from batch_progress import table
from batch_progress.chains import Supervised, supervised
from batch_progress.dynamodb import Client, RequestRefused


class NotCountable(Exception):
    """The batch's revision cannot be increased, for example because it is not a number. A retry would fail too."""


class Revisions:
    """Writes the revisions of batches."""

    def __init__(self, client: Client, jobs_table: str) -> None:
        self._client = client
        self._table = jobs_table

    def count(self, batch_id: str, jobs: int) -> Supervised | None:
        """Add the number of changed jobs to a batch's revision.

        Returns:
            The batch after that, `None` if it does not exist.

        Raises:
            NotCountable: The `BATCH` item does not allow it.
            ServiceUnavailable: DynamoDB gave no complete response in time.
        """
        try:
            answer = self._client.update_item(
                TableName=self._table,
                Key=table.batch_key(batch_id),
                UpdateExpression="ADD #revision :jobs",
                # Without this condition, the update would create a deleted batch again as an item with only a revision.
                ConditionExpression="attribute_exists(#owner_id)",
                ExpressionAttributeNames={"#revision": "revision", "#owner_id": "owner_id"},
                ExpressionAttributeValues={":jobs": {"N": str(jobs)}},
                # To see whether the batch needs a check.
                ReturnValues="ALL_NEW",
            )
        except RequestRefused as error:
            match error.code:
                case "ConditionalCheckFailedException":
                    return None
                case "ValidationException":
                    raise NotCountable(str(error)) from error
            raise
        return supervised(answer.raw, batch_id)
