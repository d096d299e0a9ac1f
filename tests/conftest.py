"""What all tests share: how Python starts."""

from __future__ import annotations

import os
import sys

# Hundreds of tests start the program: compiled once and kept, it is there in a third of the time.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
