"""Deterministic simulation of the whole engine: several workers and clients on one simulated clock and one faulty store.

``python -m tests.simulation --seeds 1000 --jobs 2`` tries seeds, ``--seed S`` replays one. A seed is a scenario
(`scenarios`): programs of a grammar (`programs`), what clients do, and a list of faults. It is played (`playing`) on an
event loop of our own (`loops`), where each worker and client is an actor, as a process would be: it can be killed
between any two callbacks, or frozen and go on later. What is checked at the end is in `checks`, what is held against
every commit and every answer in `books` and `seen` (limits: `limits`, signals of runs: `sends`, repairs: `repaired` and
`copies`, what they may write: `footprints`, what-ifs: `supposing`, debounced calls: `bursts`, memos: `kept`, what was taken
away: `taken`); a scenario that fails is made as small as it gets (`shrinking`).

It deliberately does not know SQLite, threads or real processes: tests/crash kills those.
"""
