"""The audio stage: speech tokens -> mel (flow) -> waveform (HiFT), for many requests at once. Start at `stage`.

Policy, without torch: `scheduler` (what runs next), `stream` (which flow call is due), `playback`, `budgets`.
State of a request: `segment`. Arithmetic on segments: `synthesizer`, over `flow` and `hift`.
"""
