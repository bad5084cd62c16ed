"""The rules of money, as plain values and functions: no await, no I/O, no clock, no random, no float."""
