"""Leave of botocore what a client of DynamoDB uses: `trim.py FOLDER`, the folder that has `botocore` in it.

A cold start otherwise reads a megabyte of other services' endpoints, the prose of every operation, and the code that
makes help texts of it: a fifth of its time. What is left works for boto3 too.
"""

import gzip
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Final

SERVICE: Final = "dynamodb"
# Older versions of its interface, which nobody asks for.
_OLD: Final = "2011-12-05"
# An import that only a help text needs, and what puts it off until one is asked for.
_IMPORT: Final = re.compile(r"^from (botocore\.docs\.\S+) import (\w+)$", re.MULTILINE)
_LATER: Final = r"""

def \2(*args, **kwargs):
    from \1 import \2

    return \2(*args, **kwargs)
"""


def main(folder: Path) -> None:
    """Trim the botocore in `folder`."""
    data = folder / "botocore" / "data"
    for service in data.iterdir():
        if service.is_dir() and service.name != SERVICE:
            shutil.rmtree(service)
    shutil.rmtree(data / SERVICE / _OLD, ignore_errors=True)
    _trim_endpoints(data / "endpoints.json")
    for examples in (data / SERVICE).rglob("examples-*"):
        examples.unlink()
    for model in (data / SERVICE).rglob("*.json.gz"):
        _write(model.with_suffix(""), _without_prose(json.loads(gzip.decompress(model.read_bytes()))))
        model.unlink()
    for name in ("__init__.py", "docstring.py"):
        _put_off(folder / "botocore" / "docs" / name)


def _trim_endpoints(file: Path) -> None:
    endpoints = json.loads(file.read_bytes())
    for partition in endpoints["partitions"]:
        partition["services"] = {name: it for name, it in partition["services"].items() if name == SERVICE}
    _write(file, endpoints)


def _without_prose(value: Any) -> Any:  # noqa: ANN401  # JSON
    """Leave out texts called `documentation`; a member of that name is an object."""
    if isinstance(value, dict):
        return {
            name: _without_prose(each)
            for name, each in value.items()
            if not (name == "documentation" and isinstance(each, str))
        }
    return [_without_prose(each) for each in value] if isinstance(value, list) else value


def _put_off(file: Path) -> None:
    put_off, imports = _IMPORT.subn(_LATER, file.read_text(encoding="utf-8"))
    if not imports:
        sys.exit(f"trim: botocore's {file.name} is not as it was; look at it anew")
    file.write_text(put_off, encoding="utf-8")


def _write(file: Path, value: object) -> None:
    file.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
