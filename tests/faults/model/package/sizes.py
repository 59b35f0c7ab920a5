SIZES = (4, 8, 3)
