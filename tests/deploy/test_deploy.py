"""What the files in `deploy` say about the commands: flags, probes, metrics and TF_CONFIG."""

import contextlib
import http.server
import importlib
import json
import pathlib
import re
import subprocess
import sys
import threading
import types
from collections.abc import Iterator

import numpy as np
import pytest
import yaml

import ocr
from ocr.serving import rest_api
from ocr.serving.server_metrics import Metrics
from ocr.training import devices

DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
DOCKERFILES = sorted(DEPLOY.glob("*.Dockerfile"))


def resources() -> dict[str, dict]:
    """Returns the resources of the manifests by `Kind/name`."""
    loaded = [each for path in MANIFESTS for each in yaml.safe_load_all(path.read_text("utf-8"))]
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in loaded}


def container(name: str) -> dict:
    (only,) = resources()[name]["spec"]["template"]["spec"]["containers"]
    return only


def compose() -> dict[str, dict]:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_manifests_fit_the_schemas_of_kubernetes(path: pathlib.Path, version: str):
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="make deploy-check installs it")
    for resource in yaml.safe_load_all(path.read_text("utf-8")):
        kubernetes_validate.validate(resource, version, strict=True)


def test_images_have_the_version_of_the_package():
    images = [container("Deployment/ocr-serve")["image"], container("Job/ocr-train")["image"], compose()["ocr-serve"]["image"]]
    assert images == [f"line-ocr-{kind}:{ocr.__version__}" for kind in ("serve", "train", "serve")]
    for path in DOCKERFILES:
        versions = re.findall(r"line-ocr-\w+:([0-9][0-9.]*[0-9])", path.read_text("utf-8"))
        assert set(versions) == {ocr.__version__}, path


def test_flags_exist():
    for command, arguments in {
        "ocr_serve": container("Deployment/ocr-serve")["args"] + compose()["ocr-serve"]["command"],
        "ocr_train": container("Job/ocr-train")["args"],
    }.items():
        flags = importlib.import_module(f"tools.{command}").FLAGS
        assert {each.removeprefix("--").split("=")[0] for each in arguments} <= set(flags)


def test_probes_ask_for_what_the_server_answers():
    routes = rest_api.application(types.SimpleNamespace(model_name="ocr"), 2**20, None).router.routes()
    paths = {route.resource.canonical for route in routes}
    server = container("Deployment/ocr-serve")
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    for kind in ("startup", "readiness", "liveness"):
        asked = server[f"{kind}Probe"]["httpGet"]
        assert asked["path"] in paths
        assert ports[asked["port"]] == 8501
    annotations = resources()["Deployment/ocr-serve"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/path"] in paths
    scraped = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert {job["metrics_path"] for job in scraped} <= paths


@contextlib.contextmanager
def answering(status: int) -> Iterator[int]:
    """Answers /readyz on a free port with a status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()


def test_the_health_check_of_the_image_tells_a_server_that_is_ready():
    text = (DEPLOY / "serve.Dockerfile").read_text("utf-8")
    _, *arguments = json.loads(re.search(r"HEALTHCHECK.*\\\n +CMD (\[.*\])", text)[1])

    def check(port: int) -> int:
        line = [argument.replace("8501", str(port)) for argument in arguments]
        return subprocess.run([sys.executable, *line], env={"http_proxy": "http://127.0.0.1:1"}, check=False).returncode

    with answering(200) as port:
        assert check(port) == 0
    assert check(port) == 1
    with answering(503) as port:
        assert check(port) == 1


def run_with_tf_config(**environment: str) -> subprocess.CompletedProcess:
    line = [sys.executable, DEPLOY / "with_tf_config.py", sys.executable, "-c", "import os; print(os.environ['TF_CONFIG'])"]
    return subprocess.run(line, env=environment, capture_output=True, text=True, check=False)


def test_each_pod_of_the_job_finds_its_place_among_the_workers(monkeypatch: pytest.MonkeyPatch):
    job = resources()["Job/ocr-train"]["spec"]
    environment = {each["name"]: each["value"] for each in container("Job/ocr-train")["env"]}
    assert job["completions"] == job["parallelism"] == int(environment["WORKERS"]) == 2
    configs = [run_with_tf_config(**environment, JOB_COMPLETION_INDEX=str(index)).stdout for index in range(2)]
    for index, config in enumerate(configs):
        monkeypatch.setenv("TF_CONFIG", config)
        assert devices._cluster() == (index, 2)
        # The name of the Job and the index are a pod's host name, the Service is its domain.
        assert json.loads(config)["cluster"]["worker"] == ["ocr-train-0.ocr-train:2222", "ocr-train-1.ocr-train:2222"]
    service = resources()["Service/ocr-train"]["spec"]
    assert (service["clusterIP"], job["template"]["spec"]["subdomain"]) == ("None", "ocr-train")
    assert service["ports"][0]["port"] == container("Job/ocr-train")["ports"][0]["containerPort"] == 2222


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({}, "WORKERS=: must be a whole number"),
        ({"WORKERS": "2", "JOB_COMPLETION_INDEX": "-1"}, "JOB_COMPLETION_INDEX=-1: must be a whole number"),
        ({"WORKERS": "2", "JOB_COMPLETION_INDEX": "2"}, "JOB_COMPLETION_INDEX=2: must be below WORKERS=2"),
        ({"WORKERS": "2", "JOB_COMPLETION_INDEX": "1", "WORKER_ADDRESS": "a:1"}, "WORKER_ADDRESS=a:1: must be HOST:PORT with"),
    ],
    ids=["nothing", "negative", "too large", "one address"],
)
def test_an_incomplete_environment_is_refused_in_one_line(environment: dict[str, str], message: str):
    done = run_with_tf_config(**environment)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert message in done.stderr


def test_the_dashboard_shows_metrics_and_labels_that_exist():
    versions = types.SimpleNamespace(served={1: None}, current=types.SimpleNamespace(number=1))
    metrics = Metrics(versions, lambda: 0)
    metrics.count_request("OK", 0.1)
    metrics.count_lines(1, np.array([0], np.int32), np.array([0.9], np.float32))
    exposed = metrics.format().decode()
    samples = dict(re.findall(r"^(\w+)(?:\{(.*)\})? ", exposed, re.M))
    labels = {name: {*re.findall(r'(\w+)="', pairs), "job", "instance"} for name, pairs in samples.items()}
    dashboard = json.loads((DEPLOY / "monitoring" / "dashboard.json").read_text("utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set()
    for query in queries:
        grouped = re.findall(r"\w+", ",".join(re.findall(r"by \((.*?)\)", query)))
        for name, selector in re.findall(r"(ocr_\w+)\{(.*?)\}", query):
            assert {*grouped, *re.findall(r"(\w+)[!=~]+\"", selector)} <= labels[name], query
            shown.add(name)
    families = {re.sub("_(total|bucket|count|sum|created)$", "", name) for name in samples}
    assert {re.sub("_(total|bucket|count|sum)$", "", name) for name in shown} == families
    (choices,) = (each["query"] for each in dashboard["templating"]["list"] if each["name"] == "confidence")
    assert set(choices.split(",")) <= set(re.findall(r'le="(.*?)"', exposed))
