"""Simulate a plan on its devices, and backprop's pipeline schedules on the same costs, without running anything."""
