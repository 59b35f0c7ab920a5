"""Auto-wiring: choose relays, attachments and kernels for a model and its devices. Nothing here imports torch."""
