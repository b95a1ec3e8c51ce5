import shutil

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2


def test_the_two_newest_versions_are_configured(trained, invoke, last_json, tmp_path):
    def configured(folder: str) -> tuple[list[int], dict[str, int]]:
        done = invoke("ocr_export", "--export_dir=export", f"--serving_config={folder}", "--serving_base_path=/mnt/ocr")
        assert done.returncode == 0, done.stderr
        assert sorted(last_json(done)["serving_config"]) == ["batching.config", "models.config", "monitoring.config"]
        text = (tmp_path / folder / "models.config").read_text("utf-8")
        (model,) = text_format.Parse(text, model_server_config_pb2.ModelServerConfig()).model_config_list.config
        assert (model.name, model.base_path) == ("ocr", "/mnt/ocr")
        return list(model.model_version_policy.specific.versions), dict(model.version_labels)

    for version in "7", "8", "10":
        shutil.copytree(trained.export / "1", tmp_path / "export" / version)
        if version == "7":
            assert configured("one") == ([7], {"stable": 7})
    assert configured("three") == ([8, 10], {"stable": 8, "canary": 10})
    again = invoke("ocr_export", "--export_dir=export", "--serving_config=three")
    assert again.returncode == 1
    assert again.stderr.startswith("error: three: already there")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--export_dir=nowhere"], "--export_dir=nowhere: no version in it"),
        (["--export_dir=nowhere", '--serving_base_path=a"b'], "must not hold quotation marks"),
    ],
    ids=["no version", "quotation mark in the path"],
)
def test_what_cannot_be_configured_is_refused(invoke, tmp_path, arguments: list[str], message: str):
    done = invoke("ocr_export", "--serving_config=new", *arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert message in done.stderr
    assert not (tmp_path / "new").exists()
