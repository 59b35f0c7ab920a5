# argument: mising_file.py
