# An image with the service's binary and little else.
#
#   docker build -t sidecache:local .
#   docker run --rm -p 127.0.0.1:8080:8080 sidecache:local
#
# The cache mounts need BuildKit. It is the default since Docker 23; before, set
# DOCKER_BUILDKIT=1. `--build-arg RUST_VERSION=1.95` pins the compiler.

ARG RUST_VERSION=1

FROM rust:${RUST_VERSION}-bookworm AS build
WORKDIR /build
# Everything that .dockerignore does not exclude. It excludes rust-toolchain.toml, so the
# image's own compiler is used and rustup downloads nothing.
COPY . .
# Crates and object files are in cache mounts, which are kept between builds: after a change
# only this crate is compiled, not its dependencies. The mounts are not part of the image, so
# the same RUN copies the binary out of them.
RUN --mount=type=cache,id=sidecache-registry,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,id=sidecache-target,target=/build/target,sharing=locked \
    cargo build --profile dist --locked --bin sidecache \
    && install -D -m 0755 target/dist/sidecache /out/sidecache

# The same Debian release as the builder, so that the libc matches.
FROM debian:bookworm-slim
# ca-certificates: rediss:// trusts the system's certificate authorities. By default the
# SQLite file is in ./data below the working directory; mount a volume there to keep it.
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
# As a number, because Kubernetes' runAsNonRoot cannot check a name.
USER 10001:10001

# The image sets no setting in the environment, because a mounted file could not override it. All settings of the
# image's user override this file of defaults, including those in a mounted file (SIDECACHE_CONFIG).
ENV SIDECACHE_DEFAULTS=/usr/share/sidecache/defaults.toml
EXPOSE 8080

# After SIGTERM the service drains for at most drain_timeout_ms (10 s): wait longer than that
# (docker stop --time 15).
STOPSIGNAL SIGTERM

# /livez, not /readyz: an instance without its shards must not be replaced. The image has
# no curl or wget. bash, an essential package of Debian, opens the connection itself, so
# nothing has to be installed and patched for this. The port comes from the settings in
# force, except command-line flags. --timeout ends the check if no answer comes.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "read -r _ address _ < <(sidecache print-config | grep '^listen ') && exec 3<>/dev/tcp/127.0.0.1/${address##*:} && printf 'GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && [ \"$status\" = 200 ]"]

ENTRYPOINT ["sidecache"]
