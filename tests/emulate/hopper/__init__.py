"""Hopper's instructions in the emulator: see README.md."""
