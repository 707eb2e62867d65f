"""Configuration: what was asked (`engine`, `flags`), the machine (`machine`), what runs (`resolve` -> `plan`)."""
