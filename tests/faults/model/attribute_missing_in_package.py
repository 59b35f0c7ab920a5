# argument: package.net:net
