"""What the runtime does once, and these tests do without a runtime: anyio's sets keep their order inside workflows."""

from __future__ import annotations

import anyio._backends._asyncio

from engine.core.ordered import install

install(anyio._backends._asyncio)
