"""The ttsfleet inference runtime. Start reading in `pipeline.py`: it follows one request through the stages."""
