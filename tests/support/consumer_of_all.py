"""What a consumer of many bundles runs in one clean process: load each, say tokens and logits, save it, load it again.

Started by its path. Reads `{"packages": folder, "bundles": [folder, ...], "prompts": [[token, ...], ...],
"ids": [[token, ...], ...], "new_tokens": n}` from standard input; writes `said.safetensors` beside each bundle.
"""

import json
import sys
from pathlib import Path


def main() -> None:
    """Load every bundle and write down what it says."""
    request = json.load(sys.stdin)
    sys.path.append(request["packages"])

    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    prompts, ids = torch.tensor(request["prompts"]), torch.tensor(request["ids"])
    new = request["new_tokens"]
    for bundle in map(Path, request["bundles"]):
        model = AutoModelForCausalLM.from_pretrained(bundle, trust_remote_code=True).eval()
        saved = bundle.parent / "saved"
        model.save_pretrained(saved)
        for code in bundle.glob("*.py"):
            (saved / code.name).write_bytes(code.read_bytes())
        with torch.inference_mode():
            greedy = model.generate(prompts, min_new_tokens=new, max_new_tokens=new, do_sample=False, pad_token_id=258)
            logits = model(input_ids=ids).logits
            again = AutoModelForCausalLM.from_pretrained(saved, trust_remote_code=True).eval()(input_ids=ids).logits
        said = {"greedy": greedy[:, prompts.shape[1] :].contiguous(), "logits": logits, "again": again}
        save_file(said, bundle.parent / "said.safetensors")


if __name__ == "__main__":
    main()
