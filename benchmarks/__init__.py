"""Benchmarks: Headgate beside the bare application and its peers, interleaved in one run.

`python -m benchmarks` runs them; `README.md` says what is measured and how.
"""
