"""Measurements: parity with the originals, the input pipeline, yardsticks."""
