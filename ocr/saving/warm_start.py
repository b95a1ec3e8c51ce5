"""Initial weights of a training, taken from another training or from an export."""

import pathlib

import keras
import tensorflow as tf

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.model import frozen, networks
from ocr.saving.workdir import Workdir
from ocr.serving import saved_model
from tfrecords import errors, files
from tfrecords.errors import InputError, IntegrityError


def take_weights(model: keras.Model, charset: Charset, source: str) -> int:
    """Assigns to a network the weights of another one with the same architecture.

    Classes are matched by their characters. Classes of characters that the other alphabet lacks keep their weights.

    Args:
      model: network built by `networks.build`.
      charset: alphabet of its classes.
      source: workdir of a training, of which the best weights are used; an export or one version of it; or `pretrained` for
        the export that comes with the package.

    Returns:
      The number of characters matched.

    Raises:
      InputError: there is no such training or export, or it has another architecture.
      IntegrityError: it is damaged.
    """
    path = pathlib.Path(source)
    if path != saved_model.PRETRAINED and not path.is_dir():
        raise InputError(f"--init_from={source}: no such folder")
    if Workdir(path).has_training:
        trained = Workdir(path).load()
        other, other_charset = trained.model, trained.charset
    else:
        other, other_charset = load_export(saved_model.newest_version(path))
    if other.name != model.name:
        raise InputError(
            f"--init_from={source}: has the network {other.name}, this training {model.name}; give --model={other.name}"
        )
    missing = set(other_charset.missing(charset.characters))
    shared = [label for label, character in enumerate(charset.characters) if character not in missing]
    origins = other_charset.encode("".join(charset.characters[label] for label in shared))
    last_layer = [id(weight) for weight in model.get_layer("logits").weights]
    values = []
    for weight, own, origin in zip(model.weights, model.get_weights(), other.get_weights(), strict=True):
        if id(weight) in last_layer:  # [D, C] or [C]
            own[..., [*shared, charset.blank]] = origin[..., [*origins, other_charset.blank]]
        values.append(own if id(weight) in last_layer else origin)
    model.set_weights(values)
    return len(shared)


def load_export(folder: pathlib.Path) -> tuple[keras.Model, Charset]:
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
    return model, charset
