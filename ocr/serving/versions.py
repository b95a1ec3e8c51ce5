"""The versions of a model in a folder: serves the newest, and follows changes of the folder."""

import asyncio
import contextlib
import logging
import os
import pathlib
import time
from typing import NamedTuple

from google.protobuf import message
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2

from ocr.serving import saved_model, warmup
from ocr.serving.saved_model import Export
from tfrecords import errors
from tfrecords.errors import InputError, IntegrityError

LOADING = get_model_status_pb2.ModelVersionStatus.LOADING
AVAILABLE = get_model_status_pb2.ModelVersionStatus.AVAILABLE
END = get_model_status_pb2.ModelVersionStatus.END

_RETRY_S = 60.0  # until a version that could not be loaded is retried though its files are the same

_LOG = logging.getLogger(__name__)

FileStates = frozenset[tuple[str, int, int]]  # path, size in bytes, and time of change in ns of each file


class Version(NamedTuple):
    """A loaded version.

    Attributes:
      number: Version number, which names its folder.
      export: The model.
      signatures: Descriptions of its signatures, as its SavedModel has them.
    """

    number: int
    export: Export
    signatures: get_model_metadata_pb2.SignatureDefMap


class Versions:
    """Serves the newest version in a folder.

    A new version is loaded and warmed up before it replaces the current one, which still answers the requests that it is
    reading.

    Args:
      folder: Holds a folder for each version, as `ocr_export` writes them.

    Attributes:
      current: The version that is served.
      states: By number, the state of each version that was loaded: a value of `get_model_status_pb2.ModelVersionStatus`.

    Raises:
      InputError: There is no version in the folder.
      IntegrityError: The newest version is damaged.
    """

    def __init__(self, folder: pathlib.Path):
        self.states: dict[int, int] = {}
        self._failed: dict[int, tuple[FileStates, float]] = {}  # what could not be loaded: its files at the time, and when
        self._logged: set[tuple[int, str]] = set()  # versions that were not served, and why
        newest = saved_model.newest_version(folder)
        self._folder = newest.parent
        if newest == folder:
            raise InputError(f"--export_dir={folder}: is one version; give the folder that holds it")
        self.current = self._load(int(newest.name), newest)

    async def watch(self, interval_s: float) -> None:
        """Refreshes at regular intervals until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.refresh()

    async def refresh(self) -> None:
        """Switches to the newest version that can be loaded, unless it is served already.

        A version that could not be loaded is logged once, and retried once its files change, since it may have been copied
        meanwhile, and now and then, since the machine may have lacked something.

        Raises:
          OSError: The folder cannot be listed.
        """
        folders = await asyncio.to_thread(saved_model.versions, self._folder)
        self._failed = {number: failed for number, failed in self._failed.items() if number in folders}
        for number, folder in reversed(folders.items()):
            if number == self.current.number:
                return
            files, failed = _file_states(folder), self._failed.get(number)
            if failed and failed[0] == files and time.monotonic() < failed[1] + _RETRY_S:
                continue
            try:
                version = await asyncio.to_thread(self._load, number, folder)
            except Exception as error:  # noqa: BLE001 - whatever is wrong with a version, the current one is served
                self._failed[number] = (files, time.monotonic())
                self.states.pop(number, None)
                removed = _is_removed(folder / "saved_model.pb")
                self._say(number, "removed while it was being loaded" if removed else errors.first_line(error))
                continue
            previous, self.current = self.current, version
            self.states[previous.number] = END
            self._logged.clear()
            _LOG.info("version %d replaces version %d", number, previous.number)
            return

    def _say(self, number: int, reason: str) -> None:
        if (number, reason) not in self._logged:
            self._logged.add((number, reason))
            _LOG.warning("version %d is not served: %s", number, reason)

    def _load(self, number: int, folder: pathlib.Path) -> Version:
        """Loads a version and runs its warm-up requests."""
        self.states[number] = LOADING
        export = saved_model.load(folder)
        try:
            model = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        except (OSError, message.DecodeError) as error:
            raise IntegrityError(f"{folder}: damaged ({error})") from error
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=dict(model.meta_graphs[0].signature_def))
        requests = folder / "assets.extra" / warmup.NAME
        try:
            for signature, inputs in warmup.read(requests) if requests.exists() else ():
                export.signatures[signature](**inputs)
        except errors.damage_errors() as error:
            raise IntegrityError(f"{requests}: damaged ({errors.first_line(error)})") from error
        self.states[number] = AVAILABLE
        return Version(number, export, signatures)


def _file_states(folder: pathlib.Path) -> FileStates:
    """Returns the states of the files in a folder, as far as they can be read."""
    states = set()
    for parent, _, names in os.walk(folder):  # which leaves out folders that cannot be listed
        for name in names:
            path = pathlib.Path(parent, name)
            with contextlib.suppress(OSError):
                stat = path.stat()
                states.add((str(path), stat.st_size, stat.st_mtime_ns))
    return frozenset(states)


def _is_removed(path: pathlib.Path) -> bool:
    """Returns whether there certainly is no such file."""
    try:
        path.stat()
    except OSError as error:
        return isinstance(error, FileNotFoundError | NotADirectoryError)
    return False
