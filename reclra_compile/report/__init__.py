"""One page of a run: what `reclra-compile report` reads, puts together and draws."""
