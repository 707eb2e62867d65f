"""A load generator for OpenAI-compatible speech servers: `load` decides when, `runner` does it, `report` counts."""
