"""The command line: `python -m tests.cluster COMMAND [--name NAME] [--address CIDR]`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from tests.cluster import Cluster, ClusterError, binary, remains, why_not
from tests.cluster.layout import DEFAULT_NAME, Layout


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code is 1 when it could not be done, with the reason on standard error."""
    arguments = _parser().parse_args(argv)
    try:
        return _run(arguments)
    except ClusterError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster", description="A single-node Kubernetes for tests, on this machine alone."
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--name", default=DEFAULT_NAME, help="tells clusters on one machine apart (%(default)s)")
    shared.add_argument("--address", default="", help="the /30 between host and node (derived from the name)")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in (
        ("check", "say whether this machine can run a cluster"),
        ("build", "build the cluster's binary, once per version of its sources"),
        ("up", "have a healthy cluster; at once when there is one"),
        ("down", "remove the cluster wholly, whatever state it is in"),
        ("status", "say what runs, what is wrong, and what exists of the cluster"),
        ("kubeconfig", "print the path of the administrator's kubeconfig"),
        ("env", "print what to evaluate in a shell to use the cluster"),
        ("load", "make the images of an archive usable, and print their names"),
    ):
        command = commands.add_parser(name, parents=[shared], help=text, description=text)
        if name == "load":
            command.add_argument("archive", type=Path, help="a docker or OCI archive")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "check":
        return _check()
    if arguments.command == "build":
        print(binary.build())
        return 0
    cluster = Cluster(arguments.name, address=arguments.address)
    match arguments.command:
        case "up":
            print(cluster.up())
        case "down":
            cluster.down()
        case "status":
            return _status(cluster)
        case "kubeconfig":
            print(cluster.kubeconfig)
        case "env":
            for variable, value in cluster.provider.environment().items():
                rest = ':"$PATH"' if variable == "PATH" else ""
                print(f"export {variable}={shlex.quote(value)}{rest}")
        case "load":
            for image in cluster.load(arguments.archive):
                print(image.name)
                print(image.pinned)
    return 0


def _check() -> int:
    if reason := why_not():
        print(reason)
        return 1
    return 0


def _status(cluster: Cluster) -> int:
    complaints = cluster.complaints()
    print("\n".join(complaints) if complaints else f"{cluster.name} is up: {cluster.kubeconfig}")
    if complaints:
        print(*(f"left: {thing}" for thing in remains.find(Layout(cluster.name))), sep="\n")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
