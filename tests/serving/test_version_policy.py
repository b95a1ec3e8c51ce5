import pytest

from ocr.serving.serve_config import ServeConfig
from ocr.serving.version_policy import VersionPolicy, parse_labels, parse_policy
from tfrecords.errors import InputError


def test_policies_are_those_of_tensorflow_serving():
    assert parse_policy("latest") == parse_policy("latest:1") == VersionPolicy(1)
    assert parse_policy("latest:3") == VersionPolicy(3)
    assert parse_policy("all") == VersionPolicy(None)
    assert parse_policy("specific:7,3") == VersionPolicy(None, frozenset({3, 7}))
    assert parse_policy("specific:7,3").allowed([1, 3, 5, 7]) == [7, 3]
    assert parse_policy("latest:1").allowed([1, 3]) == [3, 1]


NO_POLICIES = ["", "newest", "latest:", "latest:0", "latest:x", "all:2", "specific", "specific:", "specific:1,", "specific:-1"]


@pytest.mark.parametrize("text", [*NO_POLICIES, f"specific:{2**63}"])
def test_another_policy_is_refused(text: str):
    with pytest.raises(InputError, match=f"^--model_version_policy={text}: must be latest, latest:COUNT, all, or specific:"):
        ServeConfig("export", model_version_policy=text)


def test_labels_are_versions_by_name():
    assert parse_labels("") == {}
    assert parse_labels("stable:1,canary:0002,v1.0-beta:2") == {"stable": 1, "canary": 2, "v1.0-beta": 2}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("stable", "'stable' must be LABEL:VERSION"),
        ("stable:", "'stable:' must be LABEL:VERSION"),
        ("stable:0", "'stable:0' must be LABEL:VERSION"),
        (":1", "':1' must be LABEL:VERSION"),
        ("a/b:1", "'a/b:1' must be LABEL:VERSION"),
        ("stable:1,", "'' must be LABEL:VERSION"),
        ("stable:1,stable:2", "stable is given twice"),
        ("stable:4", "stable:4 is not one of --model_version_policy=specific:1,2"),
    ],
)
def test_labels_that_name_no_version_are_refused(labels: str, message: str):
    with pytest.raises(InputError, match=f"^--version_labels={labels}: {message}"):
        ServeConfig("export", model_version_policy="specific:1,2", version_labels=labels)


@pytest.mark.parametrize("name", ["", "a/b", "a:b", "a b", "..", "a\n", "a%2f"])
def test_a_name_that_a_path_cannot_have_is_refused(name: str):
    with pytest.raises(InputError, match=r"^--model_name="):
        ServeConfig("export", model_name=name)
    ServeConfig("export", model_name="文字.v1-2_3")
