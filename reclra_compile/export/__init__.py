"""Programs written down as what other tools read: the step as one flat graph of torch's operations."""
