"""Initial weights of a training, taken from another training or from an export."""

import pathlib
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.model import frozen, networks
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from tfrecords import errors, files
from tfrecords.errors import InputError, IntegrityError

_NEVER = np.float32(-1e9)  # logit of a class that the teacher does not know


class Origin(NamedTuple):
    """What a training starts from.

    Attributes:
      model: network with its weights.
      charset: its alphabet.
    """

    model: keras.Model
    charset: Charset

    @property
    def fingerprint(self) -> str:
        """Identifies the weights: an export of them has the same in its `model.json`."""
        return frozen.fingerprint(self.model)


def load(source: str, network: str = "") -> Origin:
    """Loads a trained network.

    Args:
      source: workdir of a training, of which the best weights are used; an export or one version of it; or `pretrained` for
        the export that comes with the package.
      network: the architecture that it has to have; empty for any.

    Raises:
      InputError: there is no such training or export, or it has another architecture.
      IntegrityError: it is damaged.
    """
    path = pathlib.Path(source)
    if path != saved_model.PRETRAINED and not path.is_dir():
        raise InputError(f"--init_from={source}: no such folder")
    if Workdir(path).has_training:
        trained = Workdir(path).load()
        origin = Origin(trained.model, trained.charset)
    else:
        origin = load_export(saved_model.newest_version(path))
    if network and origin.model.name != network:
        raise InputError(
            f"--init_from={source}: has the network {origin.model.name}, this training {network}; "
            f"give --model={origin.model.name}"
        )
    return origin


def teacher(charset: Charset, origin: Origin) -> keras.Model:
    """Builds a copy of a network with the classes of another alphabet.

    Characters that its own alphabet lacks have a logit of -1e9, so that it never outputs them.
    """
    model = networks.build(origin.model.name, charset.num_classes)
    take_weights(model, charset, origin)
    layer = model.get_layer("logits")
    kernel, bias = layer.get_weights()
    new = new_classes(charset, origin)
    kernel[:, new], bias[new] = 0.0, _NEVER
    layer.set_weights([kernel, bias])
    return model


def new_classes(charset: Charset, origin: Origin) -> list[int]:
    """Returns the classes of an alphabet whose characters a network does not know."""
    missing = set(origin.charset.missing(charset.characters))
    return [label for label, character in enumerate(charset.characters) if character in missing]


def take_weights(model: keras.Model, charset: Charset, origin: Origin) -> int:
    """Assigns to a network the weights of another one with the same architecture.

    Classes are matched by their characters. Characters that the other alphabet lacks get the mean weights of all that it has:
    where none of those is read, they are not read either.

    Args:
      model: network built by `networks.build`.
      charset: alphabet of its classes.
      origin: the other network.

    Returns:
      The number of characters matched.
    """
    other, other_charset = origin
    missing = set(other_charset.missing(charset.characters))
    shared = [label for label, character in enumerate(charset.characters) if character not in missing]
    origins = other_charset.encode("".join(charset.characters[label] for label in shared))
    last_layer = [id(weight) for weight in model.get_layer("logits").weights]
    values = []
    for weight, own, theirs in zip(model.weights, model.get_weights(), other.get_weights(), strict=True):
        if id(weight) in last_layer:  # [D, C] or [C]
            own[...] = theirs[..., : other_charset.blank].mean(-1, keepdims=True)
            own[..., [*shared, charset.blank]] = theirs[..., [*origins, other_charset.blank]]
        values.append(own if id(weight) in last_layer else theirs)
    model.set_weights(values)
    return len(shared)


def average(model: keras.Model, charset: Charset, origin: Origin, share: float) -> None:
    """Averages weights with those that they were trained from: what these read is kept, and little of the new is lost.

    See Wortsman et al., 2022, "Robust fine-tuning of zero-shot models". Characters that the other alphabet lacks stay as
    trained.

    Args:
      model: trained network.
      charset: alphabet of its classes.
      origin: what it was trained from, with the same architecture.
      share: of the weights that it was trained from, 0 to 1.
    """
    start = networks.build(model.name, charset.num_classes)
    take_weights(start, charset, origin)
    new = new_classes(charset, origin)
    last_layer = [id(weight) for weight in model.get_layer("logits").weights]
    values = model.get_weights()
    for weight, trained, initial in zip(model.weights, values, start.get_weights(), strict=True):
        if id(weight) in last_layer:
            initial[..., new] = trained[..., new]
        if np.issubdtype(trained.dtype, np.floating):
            trained += np.float32(share) * (initial - trained)
    model.set_weights(values)


def load_export(folder: pathlib.Path) -> Origin:
    """Loads the network of an export, a version, and its alphabet.

    Raises:
      IntegrityError: it is damaged.
    """
    try:
        about = files.read_json(folder / "assets.extra" / "model.json")
        charset = charsets.load_charset(folder / "assets" / "charset.txt", about["alphabet"])
        model = networks.build(about["network"], charset.num_classes)
        with files.no_wildcards(folder) as readable:
            loaded = tf.saved_model.load(str(readable))
        frozen.load_weights(model, frozen.weights(loaded.signatures["serving_default"]))
        if frozen.fingerprint(model) != about["weights"]:
            raise ValueError("its weights do not match their fingerprint")
    except (OSError, ValueError, LookupError, TypeError, AssertionError, InputError, tf.errors.OpError) as error:
        raise IntegrityError(f"{folder}: damaged export ({files.own_path(errors.first_line(error), folder)})") from error
    return Origin(model, charset)
