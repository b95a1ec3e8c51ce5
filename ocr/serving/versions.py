"""The versions of a model in a folder: serves the newest, and follows changes of the folder."""

import asyncio
import contextlib
import logging
import pathlib
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
        self._failed: dict[int, FileStates] = {}  # damaged versions, with their files at the time
        newest = saved_model.newest_version(folder)
        self._folder = newest.parent
        if newest == folder:
            raise InputError(f"--export_dir={folder}: is one version; give the folder that holds it")
        self.current = self._load(int(newest.name))

    async def watch(self, interval_s: float) -> None:
        """Refreshes at regular intervals until cancelled."""
        while True:
            await asyncio.sleep(interval_s)
            await self.refresh()

    async def refresh(self) -> None:
        """Switches to the newest version that can be loaded, unless it is served already.

        A version that could not be loaded is retried once its files change, since it may have been copied meanwhile.
        """
        for number in reversed(saved_model.versions(self._folder)):
            if number == self.current.number:
                return
            files = self._file_states(number)
            if self._failed.get(number) == files:
                continue
            try:
                version = await asyncio.to_thread(self._load, number)
            except (InputError, IntegrityError) as error:
                self._failed[number] = files
                self.states.pop(number, None)
                _LOG.warning("version %d is not served: %s", number, error)
                continue
            previous, self.current = self.current, version
            self.states[previous.number] = END
            _LOG.info("version %d replaces version %d", number, previous.number)
            return

    def _file_states(self, number: int) -> FileStates:
        states = set()
        for path in (self._folder / str(number)).rglob("*"):
            with contextlib.suppress(OSError):
                stat = path.stat()
                states.add((str(path), stat.st_size, stat.st_mtime_ns))
        return frozenset(states)

    def _load(self, number: int) -> Version:
        """Loads a version and runs its warm-up requests."""
        self.states[number] = LOADING
        folder = self._folder / str(number)
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
