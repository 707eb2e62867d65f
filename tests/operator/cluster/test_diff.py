"""desired ⊆ live, as the API server answers what was applied."""

from __future__ import annotations

from typing import Any

import pytest

from ttsfleet_operator.cluster.diff import differences, quantity, shown, stamp_of, stamped, without


def pod(**fields: Any) -> dict[str, Any]:
    return {"spec": {"template": {"spec": fields}}}


SAME = [
    pytest.param({"a": 1}, {"a": 1, "b": 2}, id="others may add fields"),
    pytest.param({"a": {}}, {}, id="an empty mapping is as good as none"),
    pytest.param({"a": []}, {}, id="an empty list is as good as none"),
    pytest.param({"a": ""}, {}, id="an empty string is as good as none"),
    pytest.param({"a": False}, {}, id="false is as good as none"),
    pytest.param({"priority": 0}, {}, id="zero is as good as none where none means zero"),
    pytest.param({"requests": {"cpu": "1000m"}}, {"requests": {"cpu": "1"}}, id="1000m is 1"),
    pytest.param({"limits": {"memory": "1024Mi"}}, {"limits": {"memory": "1Gi"}}, id="1024Mi is 1Gi"),
    pytest.param({"limits": {"nvidia.com/gpu": 1}}, {"limits": {"nvidia.com/gpu": "1"}}, id="a count of devices"),
    pytest.param({"emptyDir": {"sizeLimit": "4096Mi"}}, {"emptyDir": {"sizeLimit": "4Gi"}}, id="a size limit"),
    pytest.param({"targetPort": "8080"}, {"targetPort": 8080}, id="int or string"),
    pytest.param(
        pod(containers=[{"name": "b", "image": "x"}]),
        pod(containers=[{"name": "sidecar"}, {"name": "b", "image": "x", "imagePullPolicy": "Always"}]),
        id="containers by name, in any order, beside others",
    ),
    pytest.param(
        {"ports": [{"port": 80, "targetPort": "http"}]},
        {"ports": [{"port": 80, "protocol": "TCP", "targetPort": "http", "nodePort": 31000}]},
        id="service ports by port and protocol",
    ),
    pytest.param(
        {"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]},
        {
            "tolerations": [
                {"key": "x", "operator": "Exists"},
                {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            ]
        },
        id="tolerations by what they tolerate",
    ),
    pytest.param({"args": ["a", "b"]}, {"args": ["a", "b"]}, id="an atomic list as it is"),
    pytest.param(
        {"ingress": [{"ports": [{"port": 8080}]}]},
        {"ingress": [{"ports": [{"port": 8080, "protocol": "TCP"}]}]},
        id="defaults inside an atomic list",
    ),
    pytest.param(
        {"volumes": [{"name": "shm", "emptyDir": {}}]}, {"volumes": [{"name": "shm", "emptyDir": {}}]}, id="emptyDir"
    ),
]

OTHER = [
    pytest.param({"a": 1}, {"a": 2}, "a", id="another value"),
    pytest.param({"a": 1}, {}, "a", id="a missing value"),
    pytest.param({"replicas": 0}, {}, "replicas", id="no replicas are not the default replicas"),
    pytest.param({"a": True}, {"a": 1}, "a", id="true is not 1"),
    pytest.param({"requests": {"cpu": "1"}}, {"requests": {"cpu": "2"}}, "requests.cpu", id="another quantity"),
    pytest.param({"value": "1000m"}, {"value": "1"}, "value", id="an environment value is no quantity"),
    pytest.param(
        pod(containers=[{"name": "tts", "env": [{"name": "A", "value": "1"}]}]),
        pod(containers=[{"name": "tts", "env": [{"name": "A", "value": "2"}]}]),
        "spec.template.spec.containers[name=tts].env[name=A].value",
        id="a path through keyed lists",
    ),
    pytest.param({"args": ["a", "b"]}, {"args": ["b", "a"]}, "args", id="the order of an atomic list"),
    pytest.param({"args": ["a"]}, {"args": ["a", "b"]}, "args", id="more of an atomic list"),
    pytest.param(
        {"volumes": [{"name": "s", "emptyDir": {}}]},
        {"volumes": [{"name": "s"}]},
        "volumes[name=s].emptyDir",
        id="emptyDir",
    ),
    pytest.param({"env": [{"name": "A"}]}, {}, "env[name=A]", id="a keyed list that is gone"),
]


@pytest.mark.parametrize(("desired", "live"), SAME)
def test_nothing_is_written_for(desired: dict[str, Any], live: dict[str, Any]) -> None:
    assert differences(desired, live) == []


@pytest.mark.parametrize(("desired", "live", "path"), OTHER)
def test_a_difference_is_found_in(desired: dict[str, Any], live: dict[str, Any], path: str) -> None:
    assert [shown(one) for one in differences(desired, live)] == [path]


def test_a_stamp_tells_that_a_field_is_no_longer_wanted() -> None:
    before = stamped({"metadata": {"name": "a"}, "spec": {"nodeSelector": {"zone": "a"}}})
    after = stamped({"metadata": {"name": "a"}, "spec": {}})
    assert [shown(path) for path in differences(after, before)] == ["metadata.annotations.ttsfleet.dev/applied-hash"]
    assert stamp_of(before) != stamp_of(after)


def test_equal_manifests_have_equal_stamps_whatever_the_order() -> None:
    assert stamp_of(stamped({"a": 1, "b": {"c": 2, "d": 3}})) == stamp_of(stamped({"b": {"d": 3, "c": 2}, "a": 1}))


def test_the_stamped_manifest_is_a_copy() -> None:
    manifest: dict[str, Any] = {"metadata": {"name": "a"}}
    stamped(manifest)
    assert manifest == {"metadata": {"name": "a"}}


def test_a_path_can_be_left_out_of_what_is_written() -> None:
    desired = pod(containers=[{"name": "tts", "image": "x", "env": [{"name": "A", "value": "1"}]}], hostname="h")
    live = pod(containers=[{"name": "tts", "image": "y", "env": [{"name": "A", "value": "2"}]}], hostname="g")
    paths = differences(desired, live)
    assert len(paths) == 3
    left = without(desired, paths)
    assert left == pod(containers=[{"name": "tts", "env": [{"name": "A"}]}])
    assert differences(left, live) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [("1", 1), ("500m", "0.5"), ("1Ki", 1024), ("1.5Gi", 1610612736), ("2M", 2000000), ("1e3", 1000)],
)
def test_quantities_are_numbers(text: str, number: object) -> None:
    value = quantity(text)
    assert value is not None
    assert value == type(value)(str(number))


@pytest.mark.parametrize("text", ["", "abc", "1.2.3", "Mi"])
def test_what_is_no_quantity_is_no_number(text: str) -> None:
    assert quantity(text) is None
