"""The ttsfleet operator and the `ttsfleet` command: from a TTSService to what should run, and running it."""
