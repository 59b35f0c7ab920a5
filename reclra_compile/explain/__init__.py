"""What each code of an error or a warning means: a page of Markdown for each letter, read by `entries`."""
