# Traces CUDA, NCCL and the host on its node and ships events to Kafka
# Build from the root of the tree: docker build -f infra/docker/agent.Dockerfile .
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
# A process that is not root has the capabilities of its file, as far as the container may have them. With the effective bit
# the kernel refuses to run the program where one is missing (capabilities(7), "Capability-dumb binaries").
RUN infra/docker/root.sh target/release/causeway-agent /image \
  && install --directory --mode 750 /image/var/lib/causeway \
  && setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_nice=ep /image/usr/bin/causeway-agent

FROM scratch
LABEL org.opencontainers.image.title="causeway-agent" \
  org.opencontainers.image.description="Traces CUDA, NCCL and the host on its node and ships events to Kafka" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.documentation="docs/OPERATIONS.md"
COPY --from=root /image/ /
# A volume that is mounted here takes over the owner. Not for all of the image: chown(2) removes capabilities of files.
COPY --from=root --chown=65532:65532 /image/var/lib/causeway /var/lib/causeway
USER 65532:65532
EXPOSE 9470
VOLUME ["/var/lib/causeway"]
ENTRYPOINT ["/usr/bin/causeway-agent"]
