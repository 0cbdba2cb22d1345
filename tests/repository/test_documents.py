"""The documents and what they name: every command is one that there is, containers and automations are well-formed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli._app import _app as prefect_commands
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.workers.base import BaseJobConfiguration
from typer.main import get_command

from flows.commands.main import app
from taylor_ops.config_file.read import read
from taylor_ops.config_file.reference import reference
from tests.support.documented import NOT_RUN, TEXTS, documented, lines

ROOT = Path(__file__).parents[2]
CONTAINERS = ROOT / "containers"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(program: str) -> list[list[str]]:
    """The arguments of every call of a program in the documents, and in the comments of configs and containers."""
    commented = [*sorted((ROOT / "release_configs").glob("*.yaml")), *CONTAINERS.iterdir()]
    lines = [line.strip(" #") for path in commented for line in path.read_text("utf-8").splitlines() if line[:1] == "#"]
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        shell = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines += [
            line
            for block in [*shell, *re.findall(r"(?:^    \S.*\n)+", text, re.MULTILINE)]
            for line in block.splitlines()
        ]
        lines += re.findall(rf"`({program} [^`\n]+)`", text)
    found = [line.strip().split("          ")[0].split("  #")[0] for line in lines]
    return [shlex.split(line)[1:] for line in found if line.startswith(f"{program} ")]


def test_every_command_of_this_project_in_the_documents_is_one_that_there_is() -> None:
    found = commands("taylor-release")
    assert {"deploy", "submit", "approve", "reject", "list", "show", "diff", "clean", "changed"} <= {
        one[0] for one in found
    }
    known: Any = get_command(app)
    for name, *arguments in found:
        if not arguments:
            assert name in known.commands
            continue
        given = [re.sub(r"^[A-Z]+$|^FILE\.\.\.$", "name", one) for one in arguments if not one.startswith("|")]
        # It parses what is given, and runs nothing.
        known.commands[name].make_context(name, given)


def test_every_command_of_prefect_in_the_documents_is_one_that_there_is() -> None:
    found = commands("prefect")
    assert ["deployment", "run", "release/smollm2", "--watch"] in found
    for arguments in found:
        if "ID" not in arguments:
            # The one option that stands before the command is no part of what is parsed here.
            named = [one for one in arguments if one != "--no-prompt"]
            prefect_commands.parse_args(named, exit_on_error=False, print_error=False)


def test_what_the_documents_override_is_taken_by_the_config() -> None:
    for arguments in commands("taylor-release"):
        if "--set" in arguments:
            key, _, value = arguments[arguments.index("--set") + 1].partition("=")
            read(ROOT / "release_configs" / "smollm2.yaml", {key: value})


def test_files_that_the_documents_name_are_there() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\((?!http|\{\{)([^)#]+)\)", path.read_text("utf-8")):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
    named = re.findall(
        r"`((?:docs|containers|\.github)/[\w./-]+)`", (ROOT / "docs" / "operating.md").read_text("utf-8")
    )
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


# Containers


def test_the_compose_file_keeps_to_its_schema() -> None:
    check = Path(sys.executable).with_name("check-jsonschema")
    command = [check, "--builtin-schema", "vendor.compose-spec", CONTAINERS / "compose.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_image_has_what_a_worker_needs_and_does_not_run_as_root() -> None:
    lines = (CONTAINERS / "Dockerfile").read_text("utf-8").splitlines()
    copied = {name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]}
    assert all((ROOT / name).exists() for name in copied)
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    assert sent == copied
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "benchmarks"}
    assert packages <= copied
    assert [line for line in lines if line.startswith("USER ")] == ["USER 1000"]


@pytest.mark.parametrize("name", ["docker-pool", "kubernetes-pool"])
def test_a_work_pool_template_declares_what_it_uses_and_mounts_the_artifacts(name: str) -> None:
    template = yaml.safe_load((CONTAINERS / f"{name}.yaml").read_text("utf-8"))
    # The server refuses a template that uses a variable which it does not declare.
    WorkPoolCreate(name="pool", type=name.partition("-")[0], base_job_template=template)
    used = set(re.findall(r"\{\{ (\w+) \}\}", yaml.safe_dump(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    assert "image" in used
    assert "/release/artifacts" in yaml.safe_dump(template["job_configuration"])
    assert (
        BaseJobConfiguration._get_base_config_defaults(template["variables"]["properties"])["image"] == "taylor-release"
    )


def test_pods_are_not_root_and_have_the_gpu_and_the_volume_of_the_artifacts() -> None:
    claim, deployment = yaml.safe_load_all((CONTAINERS / "kubernetes-worker.yaml").read_text("utf-8"))
    job = yaml.safe_load((CONTAINERS / "kubernetes-pool.yaml").read_text("utf-8"))["job_configuration"]["job_manifest"]
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    for pod in (deployment["spec"]["template"]["spec"], job["spec"]["template"]["spec"]):
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert container["envFrom"] == [{"secretRef": {"name": "taylor-release"}}]
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/release/artifacts"]
        assert [volume["name"] for volume in pod["volumes"]] == [mount["name"] for mount in container["volumeMounts"]]
    claimed = deployment["spec"]["template"]["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claimed == claim["metadata"]["name"]


# What the documents have people type


def test_every_command_for_those_who_operate_is_run_by_a_test_or_it_is_said_why_not() -> None:
    asked = re.compile(r"""\b(?:documented|told)\(["']([^"']+)["']""")
    texts = [path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py")]
    tests = "".join(text for text in texts if "from tests.support.documented import" in text)
    run = {documented(beginning) for beginning in asked.findall(tests)}
    assert {line for text in TEXTS for line in lines(text)} - run == NOT_RUN.keys()


def test_the_config_from_a_to_z_is_what_the_schema_says_and_every_key_is_described() -> None:
    text = reference()
    # `taylor-release schema --markdown > docs/release-config.md`
    assert (ROOT / "docs" / "release-config.md").read_text("utf-8") == text
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    assert [row[0] for row in rows if row[0] != "| `kind`" and row[-1].strip(" |") == ""] == []
    anchors = {re.sub(r"[^\w -]", "", heading).replace(" ", "-") for heading in re.findall(r"^## (.*)$", text, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_the_configs_of_the_reference_are_some(tmp_path: Path) -> None:
    least, extending = re.findall(r"^```yaml\n(.*?)^```", reference(), re.M | re.S)
    (tmp_path / "least.yaml").write_text(least, encoding="utf-8")
    assert read(tmp_path / "least.yaml").config.name == "my-model-taylor"
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "llama.yaml").write_text("card: {license: llama3}\n", encoding="utf-8")
    (tmp_path / "extending.yaml").write_text(extending, encoding="utf-8")
    config = read(tmp_path / "extending.yaml").config
    assert (config.name, config.card.license) == ("llama-3-8b-taylor", "llama3")
