"""The encode stage: text to token ids, prompt audio to voice entries. Imports no torch; start reading at `stage`."""

import os

# ONNX Runtime reports its use to its vendor from the moment it is imported, and leaves a database in the home folder
# (seen with 1.32 on Linux), unless this is set by then. Every module that imports it lies in this package.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
