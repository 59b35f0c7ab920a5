# argument: package/
