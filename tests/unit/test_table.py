"""`table.py` agrees with the types of decoded items, the documents and the page."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from batch_progress import decode, table
from batch_progress.table import JobStatus

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "recording.md"
ITEM = {
    "sk": "S",
    **table.BATCH_ATTRIBUTES,
    **table.OWN_ATTRIBUTES,
    **table.JOB_ATTRIBUTES,
    **table.ATTEMPT_ATTRIBUTES,
}


def decoded(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return the type of each attribute of a struct: the name of its value's only field."""
    types = {}
    for field in msgspec.structs.fields(kind):
        (value,) = (each for each in get_args(field.type) or (field.type,) if each is not type(None))
        (types[field.encode_name],) = value.__struct_fields__
    return types


@pytest.mark.parametrize(
    ("kind", "attributes"), [(decode.Item, ITEM), (decode.DetailedItem, ITEM | dict(table.DETAIL_ATTRIBUTES))]
)
def test_each_attribute_that_is_read_is_decoded_by_its_type(
    kind: type[msgspec.Struct], attributes: Mapping[str, str]
) -> None:
    assert attributes == decoded(kind)


def documented() -> dict[str, dict[str, str]]:
    """Return the types of the attributes in the page's table, by sort key."""
    found: dict[str, dict[str, str]] = {}
    attributes: dict[str, str] = {}
    section = PAGE.read_text("utf-8").partition("\n### The items\n")[2].partition("\n### ")[0]
    for key, names, type_ in re.findall(r"^\| (`\S+`)? ?\| (`.+?`) \| ([SN]) \|", section, re.MULTILINE):
        attributes = found.setdefault(key, {}) if key else attributes
        attributes |= dict.fromkeys(re.findall(r"`(\w+)`", names), type_)
    return found


def test_the_page_lists_every_attribute() -> None:
    job = {
        **table.JOB_ATTRIBUTES,
        **table.DETAIL_ATTRIBUTES,
        **table.ATTEMPT_ATTRIBUTES,
        "expires_at": table.BATCH_ATTRIBUTES["expires_at"],
    }
    assert {"`BATCH`": dict(table.BATCH_ATTRIBUTES), "`JOB#<job_id>`": job} == documented()


def test_every_status_is_documented_and_offered_by_the_page() -> None:
    statuses = list(JobStatus)
    listed = re.search(r"^\| \| `status` \| S \| (.+) \|$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert listed
    assert statuses == re.findall(r"`(\w+)`", listed[1])
    transitions = PAGE.read_text("utf-8").partition("\n| The job is |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| (`.+?`) \|", transitions, re.MULTILINE)
    assert sorted(statuses) == sorted(status for row in rows for status in re.findall(r"`(\w+)`", row))
    page = re.search(r'for \(const name of \["", (.+?)\]\)', (ROOT / "page" / "page.js").read_text("utf-8"))
    assert page
    assert sorted(statuses) == sorted(re.findall(r'"(\w+)"', page[1]))
