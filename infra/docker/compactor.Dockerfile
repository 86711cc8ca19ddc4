# Keeps the tables fast and small: merges their files. It tags them once a commit names them.
# Build from the root of the tree: docker build -f infra/docker/compactor.Dockerfile .
# The stage `build` is the same in every Dockerfile here, so that BuildKit compiles once for all five.
ARG RUST=rust:1.95.0-bookworm

FROM ${RUST} AS build
# Debian removes old versions of packages from its mirrors: the image's tag, or better its digest, is the pin.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends clang ca-certificates libcap2-bin libelf-dev libssl-dev mold pkg-config zlib1g-dev \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# There is no .git in the build context: the version of the programs names this commit.
ARG COMMIT=unknown
RUN CAUSEWAY_COMMIT="${COMMIT}" cargo build --workspace --locked --release --bins

FROM build AS root
RUN infra/docker/root.sh target/release/causeway-compactor /image

FROM scratch
LABEL org.opencontainers.image.title="causeway-compactor" \
  org.opencontainers.image.description="Keeps the tables fast and small: merges their files" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.documentation="docs/OPERATIONS.md"
COPY --from=root /image/ /
USER 65532:65532
EXPOSE 9472
ENTRYPOINT ["/usr/bin/causeway-compactor"]
