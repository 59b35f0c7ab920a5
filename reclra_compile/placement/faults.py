"""What can be wrong with devices and with a placement: the codes N…"""

from __future__ import annotations

CODES = {
    "N001": "the devices asked for are malformed, or there are none",
    "N002": "a device profile that is not known",
    "N003": "a file of devices that cannot be used",
    "N004": "more devices than regions that can be apart",
    "N005": "nothing fits: regions need more memory than the devices have",
    "N006": "a pin that matches no region, or names a device that does not exist",
    "N007": "pins that contradict each other",
    "N008": "regions that settle together are asked to be on several devices",
    "N009": "microbatches, staleness, devices or placement of a kind or size that they cannot have",
}


def size(count: float) -> str:
    """Bytes as a person reads them: 3.2 GiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
