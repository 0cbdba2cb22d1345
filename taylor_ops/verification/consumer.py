"""Load a bundle as a consumer does, with plain transformers on torch; a clean process runs this file by its path.

It reads one JSON request from standard input, `{"packages": folder, "bundle": folder, "prompts": [[token, ...], ...],
"new_tokens": n}`, and writes `{"tokens": [[token, ...], ...], "modules": [...]}` as the last line of standard output.
"""

import json
import sys
from typing import Any


def main() -> None:
    """Answer the request. The path holds the packages that it names and no others."""
    request: dict[str, Any] = json.load(sys.stdin)
    sys.path.append(request["packages"])
    tokens = continued(request["bundle"], request["prompts"], request["new_tokens"])
    modules = sorted({name.partition(".")[0] for name in sys.modules})
    print(json.dumps({"tokens": tokens, "modules": modules}))


def continued(bundle: str, prompts: list[list[int]], new: int) -> list[list[int]]:
    """Load the bundle and continue all prompts greedily by `new` tokens, as one batch padded on the left."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    tokenizer = AutoTokenizer.from_pretrained(bundle, trust_remote_code=True)
    model = AutoModelForCausalLM.from_pretrained(bundle, trust_remote_code=True, dtype="auto").eval()
    # The recorded tokens are greedy by the logits alone, whatever penalties the config of the bundle adds to them.
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=model.generation_config.eos_token_id)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
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
        )
    tokens: list[list[int]] = output[:, length:].tolist()
    return tokens


if __name__ == "__main__":
    main()
