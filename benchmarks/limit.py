"""A lower limit: the CPU time of decoding all pages, counting and encoding, and of nothing else.

No HTTP, no token, no log, no forecast, no parsing of times, no malformed items, no limit on the size of the answer.
It is independent of the project's code on purpose.
"""

from collections import Counter
from typing import Final

import msgspec


class _Text(msgspec.Struct, gc=False):
    S: str


class _Number(msgspec.Struct, gc=False):
    N: int


class _Item(msgspec.Struct, gc=False):
    sk: _Text
    url: _Text | None = None
    status: _Text | None = None
    items_extracted: _Number | None = None
    started_at: _Text | None = None
    finished_at: _Text | None = None
    total_urls: _Number | None = None


class _Page(msgspec.Struct):
    items: list[_Item] = msgspec.field(name="Items")


class _Job(msgspec.Struct, gc=False):
    job_id: str
    url: str
    status: str
    items_extracted: int


class _Progress(msgspec.Struct):
    batch_id: str
    total_urls: int
    completed: int
    failed: int
    pending: int
    total_items_extracted: int
    estimated_completion: str
    jobs: list[_Job]


class _Answer(msgspec.Struct):
    success: bool
    data: _Progress


_decoder: Final = msgspec.json.Decoder(_Page, strict=False)
_encoder: Final = msgspec.json.Encoder()


def answer(batch_id: str, pages: list[bytes]) -> dict[str, object]:
    """Return the proxy response for the pages of one batch."""
    jobs: list[_Job] = []
    total = 0
    last = ""
    for page in pages:
        items = _decoder.decode(page).items
        if items[0].total_urls:
            total = items.pop(0).total_urls.N  # type: ignore[union-attr]  # checked in the line above
        last = max([last, *[item.finished_at.S for item in items if item.finished_at]])
        jobs += [
            _Job(
                item.sk.S[4:],
                item.url.S if item.url else "",
                item.status.S if item.status else "pending",
                item.items_extracted.N if item.items_extracted else 0,
            )
            for item in items
        ]
    statuses = Counter([job.status for job in jobs])
    completed, failed = statuses["completed"], statuses["failed"]
    extracted = sum([job.items_extracted for job in jobs])
    progress = _Progress(batch_id, total, completed, failed, total - completed - failed, extracted, last, jobs)
    body = _encoder.encode(_Answer(success=True, data=progress)).decode()
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": body, "isBase64Encoded": False}
