"""Opens a folder deep below another one in a single call of the kernel, where that has it."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache

#: Linux 5.6: the same number on every architecture that Python runs on, but alpha; uapi/linux/openat2.h.
_NUMBER = 437
_NO_SYMLINKS, _BENEATH = 0x04, 0x08
_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What kernels and sandboxes say that do not have it.
_UNKNOWN = (errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG)


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


_SIZE = ctypes.sizeof(_How)
_HOW = ctypes.byref(_How(_FLAGS, 0, _NO_SYMLINKS | _BENEATH))


def open_beneath(root: int, parts: Sequence[bytes]) -> int | None:
    """Open the folder `parts` below an open one, through no link and never out of it.

    None where that did not work, for whatever reason: a walk, step by step, tells which.
    """
    call, path = _find(), b"/".join(parts)
    if call is None or not path or b"\0" in path:
        return None
    fd = call(_NUMBER, root, path, _HOW, _SIZE)
    return fd if fd >= 0 else None


@cache
def _find() -> Callable[..., int] | None:
    """Return the system call, after a try; None where there is none."""
    if sys.platform != "linux":
        return None
    try:
        call = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):  # a Python that is linked statically
        return None
    call.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
    call.restype = ctypes.c_long
    how = _How(_FLAGS, 0, 0)
    fd = call(_NUMBER, -100, b"/", ctypes.byref(how), _SIZE)  # AT_FDCWD, unused
    if fd < 0:
        return None if ctypes.get_errno() in _UNKNOWN else call
    os.close(fd)
    return call
