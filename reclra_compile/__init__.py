"""reclra-compile: a model and a wiring go in; a schedule that any number of devices can execute comes out."""
