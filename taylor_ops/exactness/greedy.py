"""What makes a run greedy: the value of every setting of a generation config that could change a token.

Whatever a model's own generation config says, each run of the project whose tokens are compared takes these: those of
`generation`, and through it of `validate` and of the audit, and that of the verifying consumer. Latency and new
measurements of it call the model itself, and read no generation config.
"""

from __future__ import annotations

from typing import Any

GREEDY: dict[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "early_stopping": False,
    "length_penalty": 1.0,
    "diversity_penalty": 0.0,
    "constraints": None,
    "force_words_ids": None,
    "max_time": None,
    "stop_strings": None,
    "max_length": None,
    "min_length": 0,
    "temperature": 1.0,
    "top_k": 50,
    "top_p": 1.0,
    "top_h": None,
    "min_p": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "remove_invalid_values": False,
    "renormalize_logits": False,
    "guidance_scale": None,
    "token_healing": False,
    "watermarking_config": None,
    "penalty_alpha": None,
    "dola_layers": None,
    "low_memory": None,
    "is_assistant": False,
    "use_mtp": None,
    "prompt_lookup_num_tokens": None,
    "max_matching_ngram_size": None,
    "assistant_early_exit": None,
    "assistant_ensemble_weight": None,
    "speculation_type": None,
    "use_cache": True,
    "cache_implementation": None,
    "cache_config": None,
    "max_cache_len": None,
    "prefill_chunk_size": None,
    "compile_config": None,
    "disable_compile": True,
}
"""The settings by name, each at the value that leaves the most probable token of each step as it is."""

OF_THE_RUN = frozenset({"eos_token_id", "max_new_tokens", "min_new_tokens", "pad_token_id"})
"""Settings that each run gives: its length and padding, and the model's end tokens, which the length suppresses."""

NO_TOKEN = frozenset(
    {
        "_from_model_config",
        "assistant_confidence_threshold",
        "assistant_lookbehind",
        "bos_token_id",
        "continuous_batching_config",
        "decoder_start_token_id",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "return_dict_in_generate",
        "target_lookbehind",
        "transformers_version",
    }
)
"""Settings that change no token of a decoder that continues a prompt without an assistant."""
