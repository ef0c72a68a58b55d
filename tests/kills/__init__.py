"""Real processes on one SQLite file, killed or failed at named points, as often as asked: ``python -m tests.kills``.

`points` names where, `lives` is one trial: a pipeline that is killed until it ends, and what must hold then. The points are
hit by strace, at the system call itself, without anything in the program that knows of it.
"""
