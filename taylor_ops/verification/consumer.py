"""Load a bundle as a consumer does, with plain transformers on torch; a clean process runs this file by its path.

Its argument is the folder of the packages that it may import. It reads one JSON request in one line from standard
input, `{"bundle": folder, "prompts": [[token, ...], ...], "new_tokens": n, "settings": {...}}`. The settings make a
generation config greedy. Before this line it imports torch and transformers, and nothing of any bundle. On standard
output it writes a line `{"step": k}` for each new token, and `{"tokens": [[token, ...], ...], "modules": [...],
"without_network": bool}` as the last line.
"""

import ctypes
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

# Linux's numbers for a network, and for users, of a process's own.
_OWN_NETWORK, _OWN_USERS = 0x40000000, 0x10000000


def without_network() -> bool:
    """Leave the network for the rest of this process, which has one thread. Returns whether the machine allows it."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    user, group = os.getuid(), os.getgid()
    # With users of its own it cannot come back, not even as root. Some machines allow only root to leave.
    if unshare(_OWN_USERS | _OWN_NETWORK) == 0:
        with suppress(OSError):
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        return True
    return bool(unshare(_OWN_NETWORK) == 0)


def main() -> None:
    """Answer the request, if one comes. The path holds the packages of the argument and no others."""
    alone = without_network()
    sys.path.append(sys.argv[1])
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    line = sys.stdin.readline()
    if not line:
        return
    request: dict[str, Any] = json.loads(line)

    def tell(step: int) -> None:
        print(json.dumps({"step": step}), flush=True)

    tokens = continued(request["bundle"], request["prompts"], request["new_tokens"], request["settings"], tell)
    modules = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps({"tokens": tokens, "modules": modules, "without_network": alone}))


class Steps:
    """Counts the tokens that a model generates, in the way in which `generate` tells a streamer of them.

    Args:
        tell: Receives the number of new tokens so far.
    """

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell, self._told = tell, 0

    def put(self, _tokens: Any) -> None:
        """Take note of the prompt, which comes first, or of one more token."""
        self._tell(self._told)
        self._told += 1

    def end(self) -> None:
        """The end of the text."""


def continued(
    bundle: str,
    prompts: list[list[int]],
    new: int,
    settings: dict[str, Any],
    tell: Callable[[int], None] = lambda _step: None,
) -> list[list[int]]:
    """Load the bundle and continue all prompts greedily by `new` tokens, as one batch padded on the left.

    `tell` receives the number of new tokens so far.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    # A consumer needs it, although the prompts are tokens already.
    AutoTokenizer.from_pretrained(bundle, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(bundle, trust_remote_code=True, dtype="auto").eval()
    # The recorded tokens are greedy by the logits alone, whatever the generation config of the bundle says.
    model.generation_config = GenerationConfig(**settings, eos_token_id=model.generation_config.eos_token_id)
    # No token of a text sees the padding, so it may be any that the embedding has.
    pad = 0
    length = max(map(len, prompts))
    ids = torch.tensor([[pad] * (length - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=mask,
            min_new_tokens=new,
            max_new_tokens=new,
            pad_token_id=pad,
            streamer=Steps(tell),
        )
    tokens: list[list[int]] = output[:, length:].tolist()
    return tokens


if __name__ == "__main__":
    main()
