"""What a server serves, where it listens, and its limits."""

import dataclasses
import re

from ocr.options import check_given, check_range, option, required
from ocr.serving import version_policy
from tfrecords.errors import InputError


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """A server. The flags of `ocr_serve` have the names of these fields.

    Raises:
      InputError: a value is not allowed.
    """

    export_dir: str = required("Folder of versions that ocr_export writes; pretrained: the shipped model for Chinese.")
    model_name: str = option("ocr", "Name of the model: clients ask for /v1/models/NAME, and name it in requests of gRPC.")
    model_version_policy: str = option(
        "latest",
        "Versions to serve. latest: the newest. latest:N: the N newest. all: all in the folder. specific:3,5: only these.",
    )
    version_labels: str = option(
        "", "Labels of versions, such as stable:3,canary:5, for /v1/models/NAME/labels/LABEL and version_label."
    )
    host: str = option("127.0.0.1", "Address to listen on; 0.0.0.0 for all interfaces.")
    grpc_port: int = option(8500, "Port of gRPC; 0 for any free one.")
    rest_port: int = option(8501, "Port of REST and of the web page; 0 for any free one.")
    max_batch: int = option(32, "Largest number of lines, from several requests, in one batch.")
    max_waiting: int = option(256, "Largest number of lines in the queue; further requests are refused.")
    max_lines: int = option(128, "Largest number of lines in a request.")
    max_request_mb: int = option(64, "Largest size of a request in MiB.")
    max_connections: int = option(1000, "Largest number of open connections to each port.")
    poll_s: float = option(1.0, "Seconds between checks for a new version.")
    cors_origins: str = option(
        "",
        "Origins of other sites, such as https://example.org, separated by commas, whose pages may use REST; * for all.",
    )
    corrections_dir: str = option(
        "",
        "Folder in which to keep the texts that people correct on the page, with their images: ocr_adapt --lines takes it. It "
        "holds 10,000 lines or 1 GiB. Whoever reaches the server can write to it, but no page of another site, whatever "
        "--cors_origins says. Empty: the page corrects nothing.",
    )
    tls_cert: str = option("", "PEM file with the certificate chain, to serve over TLS.")
    tls_key: str = option("", "PEM file with the private key of --tls_cert.")

    def __post_init__(self) -> None:
        values, ports = dataclasses.asdict(self), (0, 65_535)
        check_given(export_dir=self.export_dir, host=self.host)
        if not re.fullmatch(r"[\w.-]*\w[\w.-]*", self.model_name):
            raise InputError(f"--model_name={self.model_name}: must be of letters, digits, '.', '-' and '_'")
        policy = version_policy.parse_policy(self.model_version_policy)
        for label, number in version_policy.parse_labels(self.version_labels).items():
            if not policy.allowed([number]):
                served = f"--model_version_policy={self.model_version_policy}"
                raise InputError(f"--version_labels={self.version_labels}: {label}:{number} is not one of {served}")
        origins = self.cors_origins.split(",") if self.cors_origins not in ("", "*") else []
        for origin in origins:
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", origin):
                raise InputError(f"--cors_origins: {origin!r} must be like https://example.org or http://localhost:3000")
        check_range(values, grpc_port=ports, rest_port=ports, max_batch=(1, 1024), max_waiting=(1, 10**6))
        check_range(values, max_lines=(1, 10_000), max_request_mb=(1, 1024), poll_s=(0.01, 3600.0), max_connections=(1, 10**5))
        if bool(self.tls_cert) != bool(self.tls_key):
            raise InputError("--tls_cert and --tls_key: give both or neither")
