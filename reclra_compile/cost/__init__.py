"""What tasks cost on a real machine: measured times, the rates fitted to them, and the files that keep both."""
