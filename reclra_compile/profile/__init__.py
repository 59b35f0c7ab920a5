"""Time a model's tasks on this machine, in real steps."""
