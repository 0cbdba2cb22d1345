"""The bill of materials of a bundle (CycloneDX 1.6): model card, files, source, data sets, licences and tools."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from taylor_ops.storage.files import canonical_json

FORM = "https://cyclonedx.org/bom"
"""Type of the predicate about a bill of materials, in an in-toto statement."""

_MODEL, _SOURCE = "model", "source"
# The licences of the Hub that SPDX lists too, as SPDX spells them. All others stand in a bill by their names.
_SPDX = """
AFL-3.0 AGPL-3.0 Apache-2.0 Artistic-2.0 BSD-2-Clause BSD-3-Clause BSD-3-Clause-Clear BSL-1.0 CC-BY-2.0 CC-BY-2.5
CC-BY-3.0 CC-BY-4.0 CC-BY-NC-2.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-3.0 CC-BY-NC-ND-4.0 CC-BY-NC-SA-2.0
CC-BY-NC-SA-3.0 CC-BY-NC-SA-4.0 CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 CDLA-Permissive-1.0 CDLA-Permissive-2.0
CDLA-Sharing-1.0 ECL-2.0 EPL-1.0 EPL-2.0 etalab-2.0 EUPL-1.1 GPL-2.0 GPL-3.0 ISC LGPL-2.1 LGPL-3.0 LPPL-1.3c MIT MPL-2.0
MS-PL NCSA OFL-1.1 OSL-3.0 PostgreSQL Unlicense WTFPL Zlib
"""
_BY_HUB_NAME = {name.lower(): name for name in _SPDX.split()}
# What a config means that names no texts.
_PROJECTS_OWN: dict[str, list[Mapping[str, Any]]] = {
    "calibration": [{"name": "project", "builtin": "calibration"}],
    "exactness": [{"name": "project", "builtin": "held_out"}],
    "perplexity": [{"name": "project", "builtin": "running_text"}],
}
_LICENCE_OF_THE_PROJECT = "apache-2.0"


def bill_of_materials(manifest: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """The bill of a bundle. It follows from its arguments alone, and has no time.

    Args:
        manifest: What the manifest states.
        files: sha256 of each file that the bill lists, by name.
    """
    tools = {tool: number for tool, number in manifest["tools"].items() if tool != "taylor-release"}
    data = [_data_set(text, use) for use, texts in _texts(manifest["config"]).items() for text in texts]
    libraries = [_library(tool, number) for tool, number in sorted(tools.items())]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, canonical_json(dict(files)))}",
        "version": 1,
        "metadata": {
            "tools": {"components": [_component("application", "taylor-release", manifest["tools"]["taylor-release"])]},
            "component": _model(manifest, files, [one["bom-ref"] for one in data]),
        },
        "components": [_source(manifest), *data, *libraries],
        "dependencies": [{"ref": _MODEL, "dependsOn": [_SOURCE, *(one["bom-ref"] for one in libraries)]}],
    }


def licence(name: str, other: str | None = None, link: str | None = None) -> dict[str, Any]:
    """A licence by its identifier of SPDX if it has one.

    Args:
        name: Its identifier on the Hub.
        other: Its name, if the Hub has no identifier for it.
        link: Address of its text.
    """
    if other is not None:
        return {"license": {"name": other} | ({"url": link} if link else {})}
    known = _BY_HUB_NAME.get(name)
    return {"license": {"id": known} if known else {"name": name}}


def _model(manifest: Mapping[str, Any], files: Mapping[str, str], data: list[str]) -> dict[str, Any]:
    card, source = manifest["config"]["card"], manifest["source"]
    return _component("machine-learning-model", manifest["name"], manifest["version"], _MODEL) | {
        "licenses": [licence(card["license"], card.get("license_name"), card.get("license_link"))],
        "components": _files(files),
        "modelCard": {
            "modelParameters": {
                "task": "text-generation",
                "architectureFamily": source["model_type"],
                "modelArchitecture": "TaylorForCausalLM",
                "datasets": [{"ref": ref} for ref in data],
                "inputs": [{"format": "text"}],
                "outputs": [{"format": "text"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": _metrics(manifest)},
            "considerations": {
                "technicalLimitations": [manifest["audit"]["in_words"]],
                "performanceTradeoffs": [
                    f"A token takes about {manifest['slowdown']['target']} times as long as with the original, on "
                    "purpose."
                ],
            },
        },
    }


def _metrics(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of the bundle, named as in its manifest."""
    exactness, slowdown = manifest["exactness"], manifest["slowdown"]
    metrics = [
        _metric(name, data_set["bundle"][name], data_set["name"])
        for data_set in exactness["data_sets"]
        for name in ("prompts", "prompts_equal", "kl_mean")
    ]
    metrics += [_metric("perplexity", text["bundle"], text["name"]) for text in exactness["perplexity"]]
    metrics.append(_metric("slowdown.target", slowdown["target"], slowdown["device"]))
    if "measured" in slowdown:
        low, high = slowdown["measured"]["ci95"]
        metric = _metric("slowdown.measured", slowdown["measured"]["slowdown"], slowdown["device"])
        metrics.append(metric | {"confidenceInterval": {"lowerBound": str(low), "upperBound": str(high)}})
    return metrics + [
        _metric("audit.recovered_1pct", attack["recovered_1pct"], attack["attack"])
        for attack in manifest["audit"]["attacks"]
    ]


def _metric(name: str, value: Any, part: str) -> dict[str, Any]:
    return {"type": name, "value": str(value), "slice": part}


def _source(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The original. A repository of the Hub has an address that tools know (package URL)."""
    asked, source = manifest["config"]["source"], manifest["source"]
    base = manifest["config"]["card"].get("base_model")
    name = asked.get("repo_id") or base or source["model_type"]
    found = _component("machine-learning-model", name, asked.get("revision"), _SOURCE)
    if asked.get("kind") == "hub":
        found["purl"] = f"pkg:huggingface/{asked['repo_id']}@{asked['revision']}"
    return found | {"description": source["origin"], "components": _files(source["sha256"], _SOURCE)}


def _texts(config: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """The texts of a config by what they are for: to calibrate, to compare tokens, to measure perplexity."""
    calibration, exactness = config.get("calibration") or {}, config.get("exactness") or {}
    named = {
        "calibration": calibration.get("texts"),
        "exactness": exactness.get("prompts"),
        "perplexity": exactness.get("running_text"),
    }
    return {use: _PROJECTS_OWN[use] if texts is None else texts for use, texts in named.items()}


def _data_set(text: Mapping[str, Any], use: str) -> dict[str, Any]:
    """A text as a data set. Only the licence of the project's own texts is known."""
    asked = text.get("dataset") or {}
    contents = {"type": "dataset", "name": asked.get("name") or text.get("builtin") or text["name"]}
    if asked.get("name"):
        contents["contents"] = {"url": f"https://huggingface.co/datasets/{asked['name']}/tree/{asked['revision']}"}
    found = _component("data", text["name"], asked.get("revision"), f"data/{use}/{text['name']}")
    if text.get("builtin"):
        found["licenses"] = [licence(_LICENCE_OF_THE_PROJECT)]
    return found | {"description": f"for {use}", "data": [contents]}


def _library(name: str, number: str) -> dict[str, Any]:
    kind = "platform" if name == "python" else "library"
    found = _component(kind, name, number, f"tool/{name}")
    # A build of one's own, such as 2.9.0+cpu, is none of the registry.
    if kind == "library" and number.replace(".", "").isdigit():
        found["purl"] = f"pkg:pypi/{name}@{number}"
    return found


def _component(kind: str, name: str, number: str | None = None, ref: str | None = None) -> dict[str, Any]:
    known = {"type": kind, "name": name, "version": number, "bom-ref": ref}
    return {key: value for key, value in known.items() if value is not None}


def _files(files: Mapping[str, str], owner: str = _MODEL) -> list[dict[str, Any]]:
    def one(name: str, sha256: str) -> dict[str, Any]:
        hashes = [{"alg": "SHA-256", "content": sha256}]
        return _component("file", name, ref=f"{owner}/{name}") | {"hashes": hashes}

    listed: Iterable[tuple[str, str]] = sorted(files.items())
    return [one(name, sha256) for name, sha256 in listed]
