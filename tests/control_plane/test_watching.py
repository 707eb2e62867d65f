"""The objects of a kind as a thread keeps them, on a control plane that changes, goes away and refuses."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from control_plane.plane import ControlPlane
from control_plane.waiting import eventually
from control_plane.watching import Api, Watched

NAMESPACES = "/api/v1/namespaces"


def api_of(plane: ControlPlane, user: str, groups: list[str]) -> Api:
    client = plane.certificate_for(user, groups, [])
    tls = ssl.create_default_context(cafile=plane.authority)
    tls.load_cert_chain(client.certificate, client.key)
    return Api(plane.server, tls)


@contextmanager
def watched(api: Api) -> Iterator[Watched]:
    one = Watched(api, NAMESPACES, lambda: None)
    one.start()
    try:
        yield one
    finally:
        one.stop()


def names(one: Watched) -> set[str]:
    return {found["metadata"]["name"] for found in one.objects or ()}


def test_objects_are_as_the_api_server_has_them_also_after_it_was_away(own_control_plane: ControlPlane) -> None:
    plane = own_control_plane
    with watched(api_of(plane, "reader", ["system:masters"])) as seen:
        eventually(lambda: "default" in names(seen), "the list")
        with plane.namespace("before") as before:
            eventually(lambda: before in names(seen), "what is new")
            plane.restart_api_server()
            with plane.namespace("after") as after:
                eventually(lambda: {before, after} <= names(seen), "what is new after a restart")
        eventually(lambda: not {before, after} & names(seen), "what is gone")
        assert seen.failure is None


def test_who_may_not_read_is_told_why(own_control_plane: ControlPlane) -> None:
    with watched(api_of(own_control_plane, "nobody", [])) as seen:
        eventually(lambda: "403" in seen.trouble, "the refusal")
        assert seen.objects is None
