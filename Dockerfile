# The service as an image of its binary and little else.
#
#   docker build -t sidecache:local .
#   docker run --rm -p 127.0.0.1:8080:8080 sidecache:local
#
# The cache mounts need BuildKit: the default since Docker 23, DOCKER_BUILDKIT=1
# before. `--build-arg RUST_VERSION=1.95` pins the compiler.

ARG RUST_VERSION=1

FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /build
# All that .dockerignore lets through. rust-toolchain.toml is not among it: the
# compiler is the image's, and rustup has nothing to download.
COPY . .
# Crates and object files live in cache mounts, which outlast every layer: a changed
# line recompiles this crate, not its dependencies. They are gone after the RUN, so
# the binary is copied out in it.
RUN --mount=type=cache,id=sidecache-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=sidecache-target,target=/build/target,sharing=locked \
    cargo build --profile dist --locked --bin sidecache \
    && install -D -m 0755 target/dist/sidecache /out/sidecache

# The same Debian as the builder's, so that the libc fits.
FROM debian:bookworm-slim
# ca-certificates: rediss:// trusts the system's roots. The embedded default keeps its
# SQLite file in ./data, below the working directory; mount a volume there to keep it.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 sidecache \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/sidecache \
        --shell /usr/sbin/nologin sidecache \
    && install -d -o sidecache -g sidecache /var/lib/sidecache /var/lib/sidecache/data
COPY --from=build /out/sidecache /usr/local/bin/sidecache
COPY deploy/image/defaults.toml /usr/share/sidecache/defaults.toml

WORKDIR /var/lib/sidecache
# By number, so that Kubernetes' runAsNonRoot can tell.
USER 10001:10001

# No setting stands in the environment here: a mounted file could not change it. This file is below all that the
# image's user sets, a mounted file (SIDECACHE_CONFIG) included.
ENV SIDECACHE_DEFAULTS=/usr/share/sidecache/defaults.toml
EXPOSE 8080

# SIGTERM drains for at most drain_timeout_ms (10 s): give it longer than that
# (docker stop --time 15).
STOPSIGNAL SIGTERM

# /livez, not /readyz: an instance without its shards is not to be replaced. The
# image has no curl or wget; bash is an essential package of Debian and opens the
# connection itself, so nothing has to be installed and patched for this. The port is
# that of the settings in force, but for flags. An answer that does not come is ended
# by --timeout.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "read -r _ address _ < <(sidecache print-config | grep '^listen ') && exec 3<>/dev/tcp/127.0.0.1/${address##*:} && printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]

ENTRYPOINT ["sidecache"]
