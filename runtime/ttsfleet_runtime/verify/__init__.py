"""Golden cases: run through the production code, compared with recorded outputs of the reference.

`runner` is the command and what the tests use; `registry` holds one function per kind of case, registered by the
`*_cases` modules; `manifest` reads the cases, `compare` judges them.
"""
