"""A simulated vLLM server: vLLM's HTTP surface, wire shapes and counters, without a model behind them.

It is an independent server with its own parsing and its own token counts, and imports nothing of the gateway's data
path, so that a test which compares the ledger with the engine's counters compares two independent counts. A request
goes `app` (routes, errors) → `chat` or `completions` (what was asked) → `generation` (what will be said) → `core`
(slot, prefill, pace, counters) → `wire` (vLLM's bytes).
"""
