"""What a reader does with a model on the stand-in for the Hub: a process that has torch and transformers alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from taylor_ops.verification.clean_process import link_packages
from tests.support.loopback_hub.app import Hub
from tests.support.loopback_hub.server import WRITER

_READER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[2], revision=sys.argv[3], trust_remote_code=True)
prompt = torch.tensor([json.loads(sys.argv[4])])
made = model.generate(prompt, max_new_tokens=int(sys.argv[5]), do_sample=False)
print(json.dumps(made[0, prompt.shape[1]:].tolist()))
"""


def environment(hub: Hub, home: Path) -> dict[str, str]:
    """What a process needs to read from the stand-in: nothing but its address, a token and no Xet."""
    kept = {name: os.environ[name] for name in ("PATH", "OMP_NUM_THREADS") if name in os.environ}
    client = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": WRITER, "HF_HUB_DISABLE_XET": "1"}
    return kept | client | {"HOME": str(home), "HF_HOME": str(home)}


def tokens_of_a_reader(
    hub: Hub, repo_id: str, revision: str, prompt: list[int], new_tokens: int, scratch: Path
) -> list[int]:
    """What a published model says behind a prompt, loaded as its card says."""
    link_packages(scratch / "packages")
    arguments = [str(scratch / "packages"), repo_id, revision, json.dumps(prompt), str(new_tokens)]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", _READER, *arguments],
        env=environment(hub, scratch),
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    tokens: list[int] = json.loads(done.stdout.splitlines()[-1])
    return tokens
