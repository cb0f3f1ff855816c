"""Runs a program as if the kernel were older or smaller: system calls fail by a seccomp filter, in it and in all that it starts.

    old_kernel.py RULE... -- PROGRAM ARGUMENT...

A rule is a call's name with conditions on its arguments and what comes of it: an error, 0 for a success that does nothing, or
KILL, which ends the program and so proves that it makes the call:

    splice=EINVAL
    setsockopt[1=0,2=15]=ENOPROTOOPT    level 0 (SOL_IP), option 15 (IP_FREEBIND)
    newer-than-3.10=ENOSYS              every call that came after Linux 3.10

A filter costs no stop of the program at each call, as ptrace does, and cannot be got round. Each rule is tried here before the
program starts, so none can be written in vain. Exit code 77: this machine or its Python cannot do it.
"""

import ctypes
import errno
import os
import platform
import re
import struct
import sys

# Calls by number (asm/unistd.h), for the machines that this is run on, and the first one that came after Linux 3.10:
# sched_setattr, of 3.14. New calls are numbered upwards.
NUMBERS = {
    "x86_64": {
        "AUDIT_ARCH": 0xC000003E,
        "newer-than-3.10": 314,
        "socket": 41,
        "setsockopt": 54,
        "getsockopt": 55,
        "fcntl": 72,
        "prctl": 157,
        "splice": 275,
        "accept4": 288,
        "pipe2": 293,
    },
    "aarch64": {
        "AUDIT_ARCH": 0xC00000B7,
        "newer-than-3.10": 274,
        "fcntl": 25,
        "pipe2": 59,
        "splice": 76,
        "prctl": 167,
        "socket": 198,
        "setsockopt": 208,
        "getsockopt": 209,
        "accept4": 242,
    },
}

PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_KILL_PROCESS = 0x80000000

# BPF (linux/filter.h): load a word, jump if equal, jump if greater or equal, return.
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
# struct seccomp_data: the call's number, the architecture, then eight bytes each for the address and six arguments.
CALL, ARCHITECTURE = 0, 4


def argument(n):
    """Where the lower half of an argument is; flags and small numbers have no upper one that counts."""
    return 16 + 8 * n


def unable(why):
    print(f"old_kernel.py: {why}", file=sys.stderr)
    sys.exit(77)


class Rule:
    def __init__(self, text, numbers):
        match = re.fullmatch(r"([\w.-]+)(?:\[([\d=,]+)\])?=(\w+)", text)
        self.text, (name, conditions, outcome) = text, match.groups()
        self.number, self.is_newer = numbers[name], name == "newer-than-3.10"
        pairs = (pair.split("=") for pair in (conditions or "").split(",") if pair)
        self.conditions = [(int(n), int(value)) for n, value in pairs]
        self.kills = outcome == "KILL"
        self.errno = 0 if self.kills or outcome == "0" else getattr(errno, outcome)

    def instructions(self):
        """If all holds, the outcome; else on to the next rule."""
        tests = [(CALL, AT_LEAST if self.is_newer else EQUAL, self.number)]
        tests += [(argument(n), EQUAL, value) for n, value in self.conditions]
        code = [(RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS if self.kills else SECCOMP_RET_ERRNO | self.errno)]
        for offset, compare, value in reversed(tests):
            code = [(LOAD, 0, 0, offset), (compare, 0, len(code), value)] + code
        return code

    def check(self, libc):
        """Makes the call as the rule has it. Without the filter a descriptor of -1 would give EBADF."""
        if self.kills:
            return
        values = [-1 if self.text.startswith(("splice", "setsockopt", "getsockopt", "fcntl", "accept4")) else 0] + [0] * 5
        for n, value in self.conditions:
            values[n] = value
        ctypes.set_errno(0)
        result = libc.syscall(self.number, *(ctypes.c_long(value) for value in values))
        expected = (-1, self.errno) if self.errno else (0, 0)
        if (result, ctypes.get_errno()) != expected:
            sys.exit(f"old_kernel.py: {self.text} has no effect: {result}, {os.strerror(ctypes.get_errno())}")


def main():
    end = sys.argv.index("--")
    numbers = NUMBERS.get(platform.machine())
    if numbers is None or struct.calcsize("P") != 8:
        unable(f"the numbers of {platform.machine()}'s system calls are not known here")
    rules = [Rule(text, numbers) for text in sys.argv[1:end]]
    # Calls of another architecture (32-bit ones) pass: nothing here makes them.
    code = [(LOAD, 0, 0, ARCHITECTURE), (EQUAL, 1, 0, numbers["AUDIT_ARCH"]), (RETURN, 0, 0, SECCOMP_RET_ALLOW)]
    for rule in rules:
        code += rule.instructions()
    code.append((RETURN, 0, 0, SECCOMP_RET_ALLOW))
    packed = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in code))
    # struct sock_fprog.
    program = struct.pack("@HP", len(code), ctypes.addressof(packed))
    libc = ctypes.CDLL(None, use_errno=True)
    word = ctypes.c_ulong
    if libc.prctl(PR_SET_NO_NEW_PRIVS, word(1), word(0), word(0), word(0)) != 0:
        unable(f"PR_SET_NO_NEW_PRIVS: {os.strerror(ctypes.get_errno())}")
    if libc.prctl(PR_SET_SECCOMP, word(SECCOMP_MODE_FILTER), ctypes.create_string_buffer(program), word(0), word(0)) != 0:
        unable(f"PR_SET_SECCOMP: {os.strerror(ctypes.get_errno())}")
    for rule in rules:
        rule.check(libc)
    os.execvp(sys.argv[end + 1], sys.argv[end + 1 :])


main()
