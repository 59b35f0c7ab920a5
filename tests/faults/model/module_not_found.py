# argument: pakage.net:Net
