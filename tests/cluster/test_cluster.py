"""The test cluster itself, tried on a second one beside the shared one.

The second has a fixed name: what a killed test run leaves, the next one clears.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cluster import Cluster, CommandFailed, Image, binary, images, processes, remains, waiting, why_not
from tests.cluster.commands import run
from tests.cluster.components import components
from tests.cluster.layout import Layout
from tests.cluster.source import SourceCluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]  # the first build on a machine takes minutes

BESIDE = "beside"
DEADLINE_SECONDS = 60
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: probe
    image: {image}
    imagePullPolicy: Never
    args: [listen, ":8080"]
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{port: 80, targetPort: 8080}]
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
"""
CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  accessModes: [{mode}]
  resources: {{requests: {{storage: 1Gi}}}}
"""
CLAIMANT = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  restartPolicy: Never
  securityContext: {{runAsUser: 65532, runAsNonRoot: true}}
  containers:
  - name: probe
    image: {image}
    imagePullPolicy: Never
    args: {args}
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: {claim}}}}}]
"""


@pytest.fixture(scope="module")
def shared() -> Cluster:
    if reason := why_not():
        pytest.skip(reason)
    cluster = Cluster()
    if not isinstance(cluster.provider, SourceCluster):
        pytest.skip("the cluster in use is not from source modules")
    cluster.up()
    return cluster


@pytest.fixture(scope="module")
def cleared(shared: Cluster) -> Iterator[Cluster]:
    cluster = Cluster(BESIDE)
    yield cluster
    cluster.down()


@pytest.fixture
def beside(cleared: Cluster) -> Cluster:
    """A healthy second cluster, whatever the test before did to it."""
    cleared.up()
    return cleared


@pytest.fixture
def probe(beside: Cluster, tmp_path: Path) -> Image:
    return beside.load(images.pack(binary.build() / "probe", tmp_path / "probe.tar", name="localhost/probe:1"))[0]


@pytest.fixture
def namespace(beside: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:63]
    beside.kubectl("create", "namespace", name)
    waiting.until(lambda: beside.kubectl("-n", name, "get", "sa", "-o", "name"), what="the account", timeout_seconds=60)
    yield name
    if not beside.complaints():
        beside.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def test_pods_find_each_other_and_policies_hold(beside: Cluster, probe: Image, namespace: str) -> None:
    pods = "---".join(POD.format(name=name, image=probe.pinned) for name in ("server", "friend", "stranger"))
    beside.kubectl("-n", namespace, "apply", "-f-", stdin=f"{pods}---{SERVICE}")
    beside.kubectl("-n", namespace, "wait", "pod", "--all", "--for=condition=Ready", f"--timeout={DEADLINE_SECONDS}s")

    def reaches(pod: str, host: str) -> bool:
        try:
            answer = beside.kubectl("-n", namespace, "exec", pod, "--", "/probe", "dial", f"{host}:80")
        except CommandFailed:
            return False
        return answer.startswith("hello")

    for client in ("friend", "stranger"):
        for host in ("server", f"server.{namespace}.svc.cluster.local"):
            waiting.until(lambda: reaches(client, host), what=f"{client} to reach {host}", timeout_seconds=60)  # noqa: B023
    beside.kubectl("-n", namespace, "apply", "-f-", stdin=POLICY)
    waiting.until(lambda: not reaches("stranger", "server"), what="the policy to hold", timeout_seconds=60)
    assert reaches("friend", "server")


@pytest.mark.parametrize("mode", ["ReadWriteOncePod", "ReadWriteOnce"])
def test_a_volume_lasts_as_long_as_its_claim(beside: Cluster, probe: Image, namespace: str, mode: str) -> None:
    volumes = Layout(BESIDE).volumes

    def finish(name: str, args: str) -> str:
        pod = CLAIMANT.format(name=name, image=probe.name, args=args, claim="data")
        beside.kubectl("-n", namespace, "apply", "-f-", stdin=pod)
        phase = waiting.until(
            lambda: (
                {"Succeeded", "Failed"}
                & {beside.kubectl("-n", namespace, "get", "pod", name, "-o", "jsonpath={.status.phase}")}
            ),
            what=f"the end of pod {name}",
            timeout_seconds=DEADLINE_SECONDS,
        )
        said = beside.kubectl("-n", namespace, "logs", name)
        beside.kubectl("-n", namespace, "delete", "pod", name)
        return said if phase == {"Succeeded"} else f"failed: {said}"

    beside.kubectl("-n", namespace, "apply", "-f-", stdin=CLAIM.format(name="data", mode=mode))
    assert finish("writer", "[write, /data/note, kept]") == ""
    assert finish("reader", "[read, /data/note]") == "kept"
    beside.kubectl("-n", namespace, "delete", "pvc", "data")
    waiting.until(
        lambda: not list(volumes.glob(f"{namespace}-data-*")), what="the volume's end", timeout_seconds=DEADLINE_SECONDS
    )
    beside.kubectl("-n", namespace, "apply", "-f-", stdin=CLAIM.format(name="data", mode=mode))
    assert finish("newcomer", "[read, /data/note]").startswith("failed")


def test_loading_the_same_archive_again_changes_nothing(beside: Cluster, tmp_path: Path) -> None:
    archive = images.pack(binary.build() / "probe", tmp_path / "probe.tar", name="again:1")
    first = beside.load(archive)
    assert [image.name for image in first] == ["docker.io/library/again:1"]
    assert beside.load(archive) == first
    (tmp_path / "other").write_bytes(b"another program")
    other = images.pack(tmp_path / "other", tmp_path / "other.tar", name="again:1")
    assert beside.load(other)[0].digest != first[0].digest


def test_the_api_server_can_be_away_for_a_while(beside: Cluster) -> None:
    with beside.without("apiserver"):
        assert "the API server is not ready" in beside.complaints()
        with pytest.raises(CommandFailed):
            beside.kubectl("get", "nodes", "--request-timeout=2s")
    assert "node-1" in beside.kubectl("get", "nodes")


def test_up_waits_for_a_cluster_that_is_only_slow(beside: Cluster) -> None:
    before = _component_processes(beside)
    with ThreadPoolExecutor() as pool:
        with beside.hanging("apiserver"):
            up = pool.submit(Cluster(BESIDE).up)
            assert "the API server is not ready" in beside.complaints()
        up.result()
    assert _component_processes(beside) == before


def test_up_replaces_a_cluster_that_half_died(beside: Cluster, namespace: str) -> None:
    for name in ("etcd", "containerd", "kubelet"):
        beside.stop_process(name)
    beside.up()
    assert beside.complaints() == []
    assert namespace not in beside.kubectl("get", "namespaces", "-o", "name")


def test_down_after_a_crash_leaves_nothing_and_spares_the_neighbour(
    shared: Cluster, beside: Cluster, probe: Image, namespace: str
) -> None:
    before = _component_processes(shared)
    layout = Layout(BESIDE)
    claim = CLAIM.format(name="data", mode="ReadWriteOnce")
    claimant = CLAIMANT.format(name="claimant", image=probe.name, args='[listen, ":8080"]', claim="data")
    beside.kubectl("-n", namespace, "apply", "-f-", stdin=f"{claim}---{claimant}")
    beside.kubectl("-n", namespace, "wait", "pod", "--all", "--for=condition=Ready", f"--timeout={DEADLINE_SECONDS}s")
    shims = [pid for pid in processes.members(layout) if "containerd-shim" in _command_line(pid)]
    assert shims
    for name in ("containerd", "kubelet", "apiserver"):
        beside.stop_process(name)
    os.kill(shims[0], signal.SIGKILL)

    beside.down()

    assert remains.find(layout) == []
    assert _traces(layout) == []
    assert _component_processes(shared) == before
    assert shared.complaints() == []
    beside.down()  # and again, with nothing there


def _component_processes(cluster: Cluster) -> dict[str, int | None]:
    layout = Layout(cluster.name)
    return {name: processes.find(layout, component) for name, component in components(layout).items()}


def _traces(layout: Layout) -> list[str]:
    """What the machine's own tools show of a cluster; none of this package's code."""
    texts = (layout.handle, str(layout.state))
    everything = [
        *Path("/proc/mounts").read_text().splitlines(),
        *run("ip", "netns", "list").splitlines(),
        *run("ip", "-oneline", "link").splitlines(),
        *run("find", "/sys/fs/cgroup", "/run", "-name", f"{layout.handle}*").splitlines(),
        *run("find", "/var/log/containers", "-lname", f"{layout.state}/*").splitlines(),
        *(_command_line(int(entry)) for entry in os.listdir("/proc") if entry.isdigit()),
    ]
    return [line for line in everything if any(text in line for text in texts)]


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
