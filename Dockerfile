# The product: operator, engine, sidecar and command line in one image; the pod's command says which of them runs, for
# example ["python3", "-m", "fairlead.controllers"].
#
# `python -m images build fairlead` prepares the two folders that are copied: `site` (the locked dependencies) and
# `project` (this repository as a wheel). So nothing is downloaded here, and the image has no package installer.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

# What changes with the lock only.
FROM ${BASE_IMAGE} AS dependencies
LABEL org.opencontainers.image.title="fairlead" \
      org.opencontainers.image.description="A Kubernetes operator for governed AI workflows" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PYTHONPATH=/opt/fairlead/site \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
WORKDIR /tmp
COPY site/ /opt/fairlead/site/
# Bytecode is compiled here because a read-only root can never write it; without it a start costs two to four times as
# much. That of the standard library too: bases bring none, or one that fits the time of another file. It is not checked
# against the source: the two cannot change apart.
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash -x '/(tests?|idlelib|lib2to3|site-packages)/' \
    "$(python3 -c 'import os; print(os.path.dirname(os.__file__))')" /opt/fairlead/site

FROM dependencies
COPY project/ /opt/fairlead/site/
RUN python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash /opt/fairlead/site/fairlead
USER 65532:65532
