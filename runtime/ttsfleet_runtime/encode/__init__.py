"""The encode stage: text to token ids, prompt audio to voice entries. Imports no torch; start reading at `stage`."""
