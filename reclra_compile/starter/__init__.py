"""A first wiring for a model: chosen by what was measured to learn, and written with comments."""
