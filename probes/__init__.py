"""Instruments: arrays and responses in, frozen results out. No disk, no network, no LLM, no loop."""
