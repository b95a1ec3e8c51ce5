#!/usr/bin/env python3
"""Runs a command as one of several workers that train together: sets TF_CONFIG, from which `ocr_train` knows the others.

For example, in each pod of an Indexed Job of Kubernetes, which sets JOB_COMPLETION_INDEX itself:

  WORKERS=2 WORKER_ADDRESS='ocr-train-{index}.ocr-train:2222' with_tf_config ocr_train --train_data=records ...

It needs no package, and replaces itself by the command, which so receives the signals.
"""

import json
import os
import sys


def tf_config(environment: dict[str, str]) -> str:
    """Returns the value of TF_CONFIG; see tf.distribute.MultiWorkerMirroredStrategy.

    Args:
      environment: WORKERS, the number of workers; WORKER_ADDRESS, HOST:PORT of each with `{index}` in it; and
        JOB_COMPLETION_INDEX, the number of this worker, from 0.

    Raises:
      ValueError: one of them is missing or invalid.
    """
    numbers = {}
    for name in ("WORKERS", "JOB_COMPLETION_INDEX"):
        value = environment.get(name, "")
        if not (value.isascii() and value.isdigit()):
            raise ValueError(f"{name}={value}: must be a whole number")
        numbers[name] = int(value)
    workers, index = numbers.values()
    if index >= workers:
        raise ValueError(f"JOB_COMPLETION_INDEX={index}: must be below WORKERS={workers}")
    address = environment.get("WORKER_ADDRESS", "")
    if "{index}" not in address:
        raise ValueError(f"WORKER_ADDRESS={address}: must be HOST:PORT with {{index}} in it")
    addresses = [address.replace("{index}", str(number)) for number in range(workers)]
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def main() -> None:
    """Runs the command."""
    if len(sys.argv) < 2:
        sys.exit("error: no command; for example with_tf_config ocr_train --flagfile=train.flags")
    try:
        os.environ["TF_CONFIG"] = tf_config(dict(os.environ))
        os.execvp(sys.argv[1], sys.argv[1:])
    except ValueError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {sys.argv[1]}: {error.strerror}")


if __name__ == "__main__":
    main()
