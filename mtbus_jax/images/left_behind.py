"""Files and folders that desktops, network drives and programs leave behind."""

from __future__ import annotations

# How names begin: hidden files, macOS's copies, and Excel's lock files beside open tables.
_BEGINNINGS = (".", "__MACOSX", "~$")
# In lower case: thumbnails, recycle bins and snapshots of Windows, Synology and QNAP.
_NAMES = {
    *("thumbs.db", "desktop.ini", "$recycle.bin", "recycler", "system volume information"),
    *("@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", "lost+found"),
}


def is_left_behind(name: str) -> bool:
    """Whether to skip a file or folder, by its name without the folders above it."""
    return name.startswith(_BEGINNINGS) or name.lower() in _NAMES
