"""The pure parts of the test cluster; they need neither root nor Linux's favours."""

from __future__ import annotations

import ipaddress
import json
import os
import tarfile
from pathlib import Path

import pytest
from tests.cluster import ClusterError, binary, images, mounts, processes, providers
from tests.cluster.layout import DEFAULT_ADDRESS, DEFAULT_NAME, Layout, address_for
from tests.cluster.processes import Component


def test_the_default_cluster_has_the_first_address() -> None:
    layout = Layout()
    assert (layout.name, layout.address) == (DEFAULT_NAME, DEFAULT_ADDRESS)
    assert (layout.host_address, layout.node_address) == ("10.250.0.1", "10.250.0.2")


@pytest.mark.parametrize("name", ["second", "beside", "faults", "attacks", "zz"])
def test_every_name_has_an_address_of_its_own(name: str) -> None:
    derived = ipaddress.ip_network(address_for(name))
    assert derived.prefixlen == 30
    assert derived.subnet_of(ipaddress.ip_network("10.250.0.0/16"))  # type: ignore[arg-type]
    assert not derived.overlaps(ipaddress.ip_network(DEFAULT_ADDRESS))
    assert address_for(name) == str(derived)


@pytest.mark.parametrize("name", ["", "a", "Upper", "ends-", "1st", "a/b", "thirteen-long"])
def test_a_name_that_cannot_name_an_interface_is_refused(name: str) -> None:
    with pytest.raises(ClusterError):
        Layout(name)


@pytest.mark.parametrize("address", ["10.250.0.0/29", "10.250.0.1/30", "10.250.0.0", "nonsense"])
def test_an_address_that_is_no_slash_30_is_refused(address: str) -> None:
    with pytest.raises(ClusterError):
        Layout("second", address)


def test_a_handle_fits_into_an_interface_name() -> None:
    assert len(Layout("twelve-chars").handle) <= 15


def test_the_hash_follows_names_contents_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for directory in (tmp_path / "a", tmp_path / "b"):
        (directory / "main.go").write_text("package main")
    assert binary.source_hash(tmp_path / "a") == binary.source_hash(tmp_path / "b")
    os.utime(tmp_path / "b" / "main.go", (0, 0))
    assert binary.source_hash(tmp_path / "a") == binary.source_hash(tmp_path / "b")
    (tmp_path / "b" / "main.go").rename(tmp_path / "b" / "other.go")
    assert binary.source_hash(tmp_path / "a") != binary.source_hash(tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1", "docker.io/library/busybox:1"),
        ("team/app", "docker.io/team/app:latest"),
        ("docker.io/busybox:1", "docker.io/library/busybox:1"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("ghcr.io/team/app:1", "ghcr.io/team/app:1"),
    ],
)
def test_short_image_names_are_spelled_out(name: str, full: str) -> None:
    assert images.full_name(name) == full


@pytest.mark.parametrize("name", ["localhost/app:1", "registry:5000/team/app:1"])
def test_a_pinned_image_has_the_digest_in_place_of_the_tag(name: str) -> None:
    image = images.Image(name, "sha256:abc")
    assert image.pinned == name.removesuffix(":1") + "@sha256:abc"


def test_a_packed_program_is_an_archive_of_one_named_image(tmp_path: Path) -> None:
    (tmp_path / "probe").write_bytes(b"program")
    archive = images.pack(tmp_path / "probe", tmp_path / "probe.tar", name="probe:1")
    assert images.names_in(archive) == ["docker.io/library/probe:1"]
    with tarfile.open(archive) as tar:
        layer = next(name for name in tar.getnames() if name.endswith("layer.tar"))
        content = tar.extractfile(layer)
        assert content is not None
        with tarfile.open(fileobj=content) as files:
            assert files.getmember("probe").mode == 0o755


def test_an_oci_archive_names_its_images(tmp_path: Path) -> None:
    index = {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "ghcr.io/team/app:1"}}, {}]}
    (tmp_path / "index.json").write_text(json.dumps(index))
    with tarfile.open(tmp_path / "app.tar", "w") as tar:
        tar.add(tmp_path / "index.json", "index.json")
    assert images.names_in(tmp_path / "app.tar") == ["ghcr.io/team/app:1"]


def test_what_is_no_image_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ClusterError, match="text"):
        images.names_in(tmp_path / "text")
    with tarfile.open(tmp_path / "empty.tar", "w"):
        pass
    with pytest.raises(ClusterError, match="no named image"):
        images.names_in(tmp_path / "empty.tar")


def test_mount_points_are_read_whatever_their_names() -> None:
    table = (
        "22 1 0:20 / /sys/fs/cgroup/cpu rw,relatime shared:5 - cgroup cgroup rw,cpu\n"
        "23 1 0:21 / /a\\040b rw - tmpfs tmpfs rw\n"
    )
    assert mounts.parse(table) == [(Path("/sys/fs/cgroup/cpu"), "cgroup"), (Path("/a b"), "tmpfs")]


def test_a_process_without_the_mark_is_never_a_member() -> None:
    layout = Layout("nobody")
    assert processes.members(layout) == set()
    assert processes.find(layout, Component("shell", ("python3",))) is None


def test_a_context_that_is_asked_for_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USE_CONTEXT", "1")
    assert isinstance(providers.choose("second"), providers.ContextCluster)
