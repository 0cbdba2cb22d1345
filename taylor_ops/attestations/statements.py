"""The in-toto statements of a bundle: the gates that it passed, and its provenance (SLSA).

Both follow from the manifest alone, so equal manifests give equal statements: no time, no person, no place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GATES = "urn:taylor-release:gates:v1"
"""Type of the predicate about gates. `taylor_ops/data/gates-v1.schema.json` is its schema."""
PROVENANCE = "https://slsa.dev/provenance/v1"
"""Type of the predicate about provenance."""

_STATEMENT = "https://in-toto.io/Statement/v1"
_BUILD = "urn:taylor-release:release:v1"
_BUILDER = "urn:taylor-release:builder"
_PARTS_OF_A_BOUND = ("truncation", "rounding", "marking")


def statement(files: Mapping[str, str], kind: str, predicate: Mapping[str, Any]) -> dict[str, Any]:
    """An in-toto statement (v1) about files.

    Args:
        files: sha256 of each file by name.
        kind: Type of the predicate.
        predicate: What is stated of the files.
    """
    return {
        "_type": _STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(files.items())],
        "predicateType": kind,
        "predicate": dict(predicate),
    }


def gates_stated(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The predicate about gates: each gate before the bundle was assembled, its verdict and its figures.

    `from` is a JSON pointer to the part of the manifest that the figures come from.
    """
    gates = [_protected(manifest["coverage"]), _slowdown(manifest["slowdown"])]
    gates += [_device(manifest["slowdown"], index) for index in range(len(manifest["slowdown"]["devices"]))]
    gates += [_exact(data_set, index) for index, data_set in enumerate(manifest["exactness"]["data_sets"])]
    gates += [_alike(task, index) for index, task in enumerate(manifest["exactness"].get("tasks", ()))]
    gates += _layers(manifest)
    gates += _attacks(manifest)
    return {"name": manifest["name"], "version": manifest["version"], "gates": gates}


def provenance_stated(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The predicate about provenance (SLSA v1): the config, what a run had in its place, the source, and the tools."""
    source = manifest["source"]
    given = {name: manifest[name] for name in ("config", "overridden") if name in manifest}
    return {
        "buildDefinition": {
            "buildType": _BUILD,
            "externalParameters": given,
            "resolvedDependencies": [
                {"name": name, "digest": {"sha256": sha256}, "annotations": {"origin": source["origin"]}}
                for name, sha256 in sorted(source["sha256"].items())
            ],
        },
        "runDetails": {"builder": {"id": _builder(manifest), "version": manifest["tools"]}},
    }


def _builder(manifest: Mapping[str, Any]) -> str:
    """Who made the bundle is who signs it: nobody else vouches for the machine of a release."""
    signature = manifest.get("signature") or {}
    if "identity" in signature:
        return f"{_BUILDER}:identity:{signature['identity']}"
    if "public_key_sha256" in signature:
        return f"{_BUILDER}:key:{signature['public_key_sha256']}"
    return f"{_BUILDER}:unsigned"


def _gate(gate: str, part: str, required: str, figures: Mapping[str, Any], verdict: str = "passed") -> dict[str, Any]:
    return {"gate": gate, "verdict": verdict, "required": required, "from": part, "figures": dict(figures)}


def _protected(coverage: Mapping[str, Any]) -> dict[str, Any]:
    return _gate("neurons protected", "/coverage", "as planned", coverage)


def _slowdown(slowdown: Mapping[str, Any]) -> dict[str, Any]:
    asked = ("target", "tolerance", "device", "batch_size", "prompt_tokens", "new_tokens", "layers", "layers_measured")
    figures = {name: slowdown[name] for name in asked} | _measured(slowdown.get("measured"))
    required = "on average over loadings, the slowdown is within the tolerance of the target"
    return _gate("slowdown", "/slowdown", required, figures)


def _device(slowdown: Mapping[str, Any], index: int) -> dict[str, Any]:
    timed = slowdown["measured"]["devices"][index] if "measured" in slowdown else None
    figures = slowdown["devices"][index] | _measured(timed)
    required = "the slowdown is within the tolerance of the target"
    return _gate(f"slowdown, {figures['device']}", f"/slowdown/devices/{index}", required, figures)


def _measured(timed: Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if timed is None else {"slowdown": timed["slowdown"], "ci95": timed["ci95"]}


def _exact(data_set: Mapping[str, Any], index: int) -> dict[str, Any]:
    bundle, floor = data_set["bundle"], data_set["floor"]
    counted = ("prompts", "prompts_equal", "tokens_compared", "first_divergence", "kl_mean", "kl_max")
    figures = {name: bundle[name] for name in counted} | {
        "divergences": len(bundle["divergences"]),
        "divergences_that_are_ties": sum(1 for one in bundle["divergences"] if one["tie"]),
        "divergences_of_the_floor": len(floor["divergences"]),
    }
    required = "every divergence is a numerical tie, and there are no more than the noise floor explains"
    return _gate(f"exactness, {data_set['name']}", f"/exactness/data_sets/{index}", required, figures)


def _alike(task: Mapping[str, Any], index: int) -> dict[str, Any]:
    required = "no score of the bundle differs from that of the original by more than `allowed`"
    figures = {name: task[name] for name in ("documents", "answers_equal", "allowed")}
    figures |= {name: [one[name] for one in task["metrics"]] for name in ("metric", "original", "bundle", "difference")}
    return _gate(f"task, {task['task']}", f"/exactness/tasks/{index}", required, figures)


def _layers(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The gate of the MLP that is nearest to its bound. None if no bound holds for any token."""
    pairs = zip(manifest["exactness"]["layers"], manifest["conversion"]["layers"], strict=True)
    measured = [
        (float(error["inside"]) / bound if bound else 0.0, index, error, layer)
        for index, (error, layer) in enumerate(pairs)
        if error["inside"] is not None
        for bound in [sum(float(layer[part]) for part in _PARTS_OF_A_BOUND)]
    ]
    if not measured:
        return []
    _share, index, error, layer = max(measured, key=lambda one: one[:2])
    figures = {"mlps": len(measured), "mlp": error["path"], "error": error["inside"]}
    figures |= {part: layer[part] for part in _PARTS_OF_A_BOUND}
    required = (
        "the error of every MLP is within its bound, the sum of three parts; these are the figures of the MLP nearest "
        "to its bound"
    )
    return [_gate("error of every MLP", f"/exactness/layers/{index}", required, figures)]


def _attacks(manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    audit, asked = manifest["audit"], manifest["config"].get("audit") or {}
    if audit["skipped"]:
        return [_gate("audit", "/audit", "nothing: no attack was run", {}, "not run")]
    blocks = asked.get("policy") == "block"
    required = "no more is recovered than the threshold of the attack allows" if blocks else "nothing: it is reported"
    return [
        _gate(
            f"audit, {attack['attack']}",
            f"/audit/attacks/{index}",
            required,
            {name: attack[name] for name in ("weights", "recovered_1pct", "recovered_01pct")},
            "passed" if blocks else "reported",
        )
        for index, attack in enumerate(audit["attacks"])
    ]
