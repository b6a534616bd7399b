"""`EndSignals` wakes the threads of this process that wait for a saga, once somebody here learns of its end."""

from __future__ import annotations

import threading
from weakref import WeakValueDictionary


class EndSignals:
    """A signal for each saga whose end somebody waits for; given by whoever learns of the end first."""

    def __init__(self) -> None:
        self._signals: WeakValueDictionary[str, threading.Event] = WeakValueDictionary()
        self._lock = threading.Lock()

    def signal_of(self, saga_id: str) -> threading.Event:
        """Return the event that is set when this saga has ended; it is forgotten once nobody holds it any more."""
        with self._lock:
            signal = self._signals.get(saga_id) or threading.Event()
            self._signals[saga_id] = signal
            return signal

    def ended(self, saga_id: str) -> None:
        """Wake everybody who waits for this saga: it has ended, or there is no more to be learned of it here."""
        with self._lock:
            signal = self._signals.pop(saga_id, None)
        if signal:
            signal.set()
