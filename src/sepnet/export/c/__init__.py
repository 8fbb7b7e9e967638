"""C for microcontrollers: source of an int8 plan, compiled and run."""
