# Fourview in a container. Build arguments:
#   BASE         an image with Python 3.11 or later and its venv module
#   EXTRAS       inference,openvino (with torch and OpenVINO), or empty: enough for `receive`, `web` and the command line
#   TORCH_INDEX  where torch comes from; empty: pip's usual index, whose Linux build carries CUDA
# Run:  docker run -p 11112:11112 -v fourview:/data IMAGE        (config.toml lies in the volume)
ARG BASE=python:3.12-slim-trixie

FROM ${BASE} AS build
ARG EXTRAS=inference,openvino
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/fourview
ENV PATH=/opt/fourview/bin:$PATH
WORKDIR /source
# What the lock names comes by its hash; torch and OpenVINO differ by machine and index, so the extras come by their ranges.
COPY deploy/requirements.lock deploy/build.lock deploy/
RUN pip install --require-hashes --requirement deploy/requirements.lock
RUN case ",${EXTRAS}," in \
      *,inference,*) pip install ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} 'torch>=2.13' 'torchvision>=0.28' ;; \
    esac
COPY pyproject.toml README.md LICENSE ./
COPY listener listener
COPY pipeline pipeline
COPY store store
COPY docs/site-acceptance.md docs/site-acceptance.md
COPY deploy/orthanc deploy/orthanc
RUN python3 -m venv /opt/build && \
    /opt/build/bin/pip install --require-hashes --requirement deploy/build.lock && \
    /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . && \
    pip install "$(echo /wheels/fourview-*.whl)${EXTRAS:+[${EXTRAS}]}"

FROM ${BASE}
RUN useradd --uid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin fourview
COPY --from=build /opt/fourview /opt/fourview
COPY LICENSE /usr/share/doc/fourview/LICENSE
# Docker fills a new, empty volume with what the image has there. Paths in config.toml are relative to it, so all data are in the volume.
COPY --chown=10001:10001 config.toml /data/config.toml
COPY --chown=10001:10001 weights /data/weights
RUN chown 10001:10001 /data
# Inside a container loopback reaches nobody, so DICOM listens to all; HTTP stays on loopback until the configuration opens it.
ENV PATH=/opt/fourview/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FOURVIEW_CONFIG=/data/config.toml \
    FOURVIEW_DICOM__HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 11112 8080
# With or without TLS; whose certificate it is, is not asked of our own process.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s \
    CMD ["python3", "-c", "import os, ssl, urllib.request as r\nat = f'127.0.0.1:{os.environ.get(\"FOURVIEW_HTTP__PORT\", 8080)}/healthz'\ntry: r.urlopen('http://' + at, timeout=4)\nexcept Exception: r.urlopen('https://' + at, timeout=4, context=ssl._create_unverified_context())"]
ENTRYPOINT ["fourview"]
CMD ["serve"]
