"""The LLM stage: text tokens in, speech tokens out, continuously batched over a paged KV cache.

Read in this order: `stage` (messages) -> `engine` (one step) -> `scheduler` (what to run; pure) -> `runner` (how to
run it) -> `model`, `attention`, `sampling`. `sequence` and `block_manager` hold the nouns.
"""
