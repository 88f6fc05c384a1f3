"""Files and folders that nobody made: of desktops, network drives and programs."""

from __future__ import annotations

# How names begin: hidden, macOS's copies, and what Excel keeps beside a table that is open.
_BEGINNINGS = (".", "__MACOSX", "~$")
# In lower case: pictures of folders, recycle bins and snapshots of Windows, Synology and QNAP.
_NAMES = {
    *("thumbs.db", "desktop.ini", "$recycle.bin", "recycler", "system volume information"),
    *("@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "lost+found"),
}


def is_left_behind(name: str) -> bool:
    """Whether a file or folder is to be passed over, by its name without what is above it."""
    return name.startswith(_BEGINNINGS) or name.lower() in _NAMES
