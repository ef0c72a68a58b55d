"""The pure core: history in, decisions out.

Nothing in this package does I/O, reads a clock, draws randomness, starts a thread, logs, or knows a store. Live and
replay are the same function (`instance.Instance.deliver`), so what is tested here is what runs.
"""

from __future__ import annotations
