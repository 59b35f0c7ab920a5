"""The paper's tables as commands: rows kept in files, run with several seeds, printed beside the paper's numbers."""
