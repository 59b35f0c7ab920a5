# argument: control_flo
