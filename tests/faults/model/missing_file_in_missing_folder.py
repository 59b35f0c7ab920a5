# argument: no/such/folder/model.py
