"""Headgate in front of the bare Starlette application, as contract section 9 shows."""

from __future__ import annotations

import os

from benchmarks.sellers import starlette_app
from headgate import Headgate

gate = Headgate.from_file(os.environ["HEADGATE_CONFIG"])
app = starlette_app.build()
app.add_middleware(gate.middleware)
