from __future__ import annotations

from .hub import Event


class PlainDisplay:
    def show(self, event: Event) -> None:
        print({k: v for k, v in event.items() if v}, flush=True)
