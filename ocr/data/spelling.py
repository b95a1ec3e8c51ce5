"""Finds the file that a labels file means when it spells a name in another way than the folder does."""

import os
import pathlib
import unicodedata

_MAX_FILES = 100_000  # of a folder that is searched
_MAX_FOLDERS = 64  # whose files are remembered
_MAX_LENGTH = 4096  # of a path, in characters: the system takes no more bytes


class Spelling:
    """Looks for files in a folder, and nowhere else, whose names differ in spelling only.

    Args:
      path: real path of the folder.
      follow_links: whether links may lead elsewhere.
    """

    def __init__(self, path: str, follow_links: bool):
        self._path, self._follow_links = pathlib.Path(path), follow_links
        self._folders: dict[pathlib.Path, dict[str, str]] = {}

    def hint(self, name: str) -> str:
        """Returns a text that names the file which is there, and how its name differs; empty if there is none."""
        found = self.find(name)
        return f"; there is {found!r}{_difference(name, found)}" if found not in ("", name) else ""

    def find(self, name: str, with_extension: bool = False) -> str:
        """Returns the path of the file that a name means; empty if there is none.

        Args:
          name: as it is spelled.
          with_extension: whether the file must have the extension of the name.
        """
        if len(name) > _MAX_LENGTH:
            return ""
        parts = [part for part in name.strip().strip("\"'").replace("\\", "/").split("/") if part not in ("", ".")]
        if ".." in parts or "\0" in name:
            return ""
        for start in range(len(parts)):  # a path may begin with folders that lead to this one
            found = self._find_parts(parts[start:])
            if found and not (with_extension and _folded(pathlib.PurePath(found).name) != _folded(parts[-1])):
                return found
        return ""

    def _find_parts(self, parts: list[str]) -> str:
        """Returns the path of the file whose components are spelled like `parts`; empty if there is none."""
        path = self._path
        for part in parts:
            names = self._names(path)
            if not (match := names.get(_folded(part)) or names.get(_folded(pathlib.PurePath(part).stem))):
                return ""
            path /= match
        return str(path.relative_to(self._path)) if self._is_inside(path) and path.is_file() else ""

    def _is_inside(self, path: pathlib.Path) -> bool:
        return self._follow_links or pathlib.Path(os.path.realpath(path)).is_relative_to(self._path)

    def _names(self, folder: pathlib.Path) -> dict[str, str]:
        """Returns the names of what is in a folder, by their folded forms with and without extension."""
        if folder not in self._folders:
            if len(self._folders) >= _MAX_FOLDERS:
                self._folders.clear()
            self._folders[folder] = _list(folder) if self._is_inside(folder) else {}
        return self._folders[folder]


def _list(folder: pathlib.Path) -> dict[str, str]:
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry, _ in zip(entries, range(_MAX_FILES), strict=False))
    except OSError:
        return {}
    by_stem = {_folded(pathlib.PurePath(name).stem): name for name in names}
    return by_stem | {_folded(name): name for name in names}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()


def _difference(name: str, found: str) -> str:
    """Says how two names differ, where it may not be seen."""
    differences = []
    if "\\" in name:
        differences.append("with / for \\")
    if name != name.strip():
        differences.append("without the blank at an end of the name")
    if found != found.strip():
        differences.append("with a blank at an end of its name")
    composed_name, composed_found = unicodedata.normalize("NFC", name), unicodedata.normalize("NFC", found)
    if composed_found.casefold() == composed_name.casefold() and composed_found != composed_name:
        differences.append("in other upper and lower case")
    if (name == composed_name) != (found == composed_found):
        differences.append("in Unicode's form " + ("NFC, not NFD" if found == composed_found else "NFD, not NFC"))
    return f", {', '.join(differences)}" if differences else ""
