# All commands but ocr_serve: rendering, packing, training, evaluation, export. From the root of the repository:
#
#   docker build -f deploy/train.Dockerfile -t line-ocr-train:0.2.0 .
#   docker build -f deploy/train.Dockerfile -t line-ocr-train:0.2.0-gpu --build-arg TENSORFLOW='tensorflow[and-cuda]' .
#   docker run --user "$(id -u):$(id -g)" -v "$PWD:/work" line-ocr-train:0.2.0 ocr_train --flagfile=recipes/alnum.flags

ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
# With CUDA's libraries: tensorflow[and-cuda].
ARG TENSORFLOW=tensorflow
WORKDIR /src
COPY constraints.txt LICENSE README.md pyproject.toml setup.cfg ./
COPY tfrecords tfrecords
COPY tools tools
COPY ocr ocr
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/ocr \
    && pip --python /opt/ocr/bin/python install --disable-pip-version-check --constraint constraints.txt . "${TENSORFLOW}"

FROM python:${PYTHON_VERSION}-slim-bookworm
COPY --from=build /opt/ocr /opt/ocr
COPY --chmod=0755 deploy/with_tf_config.py /usr/local/bin/with_tf_config
# The last two are for NVIDIA's container runtime, which ignores images that do not ask.
ENV PATH=/opt/ocr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /work
CMD ["ocr_train", "--help"]
