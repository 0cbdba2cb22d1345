"""The schema of CycloneDX 1.6, as tests/support/cyclonedx holds it."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from referencing import Registry, Resource

_FOLDER = Path(__file__).parent / "cyclonedx"


@cache
def read(name: str) -> Any:
    """One of the schemas, by its name without ending."""
    return json.loads(gzip.decompress((_FOLDER / f"{name}.SNAPSHOT.schema.json.gz").read_bytes()))


@cache
def bill_schema() -> Draft7Validator:
    """What judges bills of materials, with the formats that it names."""
    others = {f"{name}.SNAPSHOT.schema.json": read(name) for name in ("spdx", "jsf-0.82")}
    place = read("bom-1.6")["$id"].rpartition("/")[0]
    registry: Any = Registry().with_resources(
        [(f"{place}/{name}", Resource.from_contents(schema)) for name, schema in others.items()]
    )
    return Draft7Validator(read("bom-1.6"), registry=registry, format_checker=Draft7Validator.FORMAT_CHECKER)
