"""A Redis whose own clock is moved while it runs: by a library of a few lines, which takes a C compiler."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

from tests.servers import Binary

#: Its clock is ahead by the seconds that lie in the file AHEAD, eight bytes that all who map it see at once.
_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *ahead;

__attribute__((constructor)) static void begin(void) {
  ahead = mmap(0, sizeof *ahead, PROT_READ, MAP_SHARED, open(AHEAD, O_RDONLY | O_CLOEXEC), 0);
}
int clock_gettime(clockid_t id, struct timespec *now) {
  int failed = syscall(SYS_clock_gettime, id, now);
  if (!failed && id == CLOCK_REALTIME && ahead) now->tv_sec += *ahead;
  return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return 0;
}
time_t time(time_t *there) {
  struct timespec exact;
  clock_gettime(CLOCK_REALTIME, &exact);
  if (there) *there = exact.tv_sec;
  return exact.tv_sec;
}
"""


class Clock:
    """The clock of one server; `binary` is that server with this clock."""

    def __init__(self, folder: Path, binary: Binary) -> None:
        """Build it in a folder of its own; see `may_move`."""
        folder.mkdir(parents=True)
        self._ahead, library, script = folder / "ahead", folder / "clock.so", folder / "redis-server"
        self.move(0)
        words = ["-shared", "-fPIC", "-O1", f'-DAHEAD="{self._ahead}"', "-xc", "-", "-o", str(library)]
        subprocess.run([_compiler(), *words], input=_SOURCE.encode(), check=True, capture_output=True)
        script.write_text(f'#!/bin/sh\nLD_PRELOAD="{library}" exec "{binary.path}" "$@"\n')
        script.chmod(0o700)
        self.binary = Binary(binary.name, script)

    def move(self, seconds: int) -> None:
        """Let the clock be ahead by so much of what it is by itself, from now on."""
        with self._ahead.open("r+b" if self._ahead.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("q", seconds))


def may_move() -> bool:
    """Return whether this machine has what it takes."""
    return sys.platform == "linux" and bool(_compiler())


def _compiler() -> str:
    return shutil.which("cc") or ""
