# ocr_serve with the pretrained model, or with exports in a volume. From the root of the repository:
#
#   docker build -f deploy/serve.Dockerfile -t line-ocr-serve:0.2.0 .
#   docker run --read-only --tmpfs /tmp -p 8500:8500 -p 8501:8501 line-ocr-serve:0.2.0
#   docker run --read-only --tmpfs /tmp -p 8500:8500 -p 8501:8501 -v "$PWD/export:/models:ro" line-ocr-serve:0.2.0 --export_dir=/models

ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
WORKDIR /src
COPY constraints.txt LICENSE README.md pyproject.toml setup.cfg ./
COPY tfrecords tfrecords
COPY tools tools
COPY ocr ocr
# The environment has no pip: the server installs nothing.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /opt/ocr \
    && pip --python /opt/ocr/bin/python install --disable-pip-version-check --constraint constraints.txt '.[serve]'

FROM python:${PYTHON_VERSION}-slim-bookworm
COPY --from=build /opt/ocr /opt/ocr
ENV PATH=/opt/ocr/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# A number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 8500 8501
# The server listens once a model is loaded. http.client takes no notice of proxies in the environment.
HEALTHCHECK --start-period=120s --interval=10s --timeout=5s \
    CMD ["python", "-Ic", "import http.client as h, sys; c = h.HTTPConnection('127.0.0.1', 8501, timeout=4); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["ocr_serve", "--host=0.0.0.0"]
CMD ["--export_dir=pretrained"]
