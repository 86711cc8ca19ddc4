#!/usr/bin/env bash
# Checks terraform/ and infra/: each with the validator of its kind, then with the laws of infra/dev/estate, which plant mistakes
# to see that they are found. Terraform's root is applied to a local server and planned again.
#   estate.sh [PROGRAMS]      PROGRAMS is the folder of what was built: ${CARGO_TARGET_DIR:-$CAUSEWAY_CACHE/target}/debug
HERE=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
# shellcheck source=SCRIPTDIR/common.sh
. "$HERE/common.sh"
TREE=$(realpath "$HERE/../..")
PROGRAMS=$(realpath -m "${1:-${CARGO_TARGET_DIR:-$CACHE/target}/debug}")
PATH=$CACHE/tools/bin:$PATH
PYTHON=$ESTATE_VENV/bin/python
export PYTHONDONTWRITEBYTECODE=1
# Version of Kubernetes whose schemas the manifests are held against.
KUBERNETES=1.33.0
# Exposure by `systemd-analyze security`, of 100: an agent has five capabilities, the others none.
EXPOSURE_AGENT=30 EXPOSURE_SERVICE=15
# Those of the image's program, as infra/docker/agent.Dockerfile has them.
AGENT_CAPABILITIES=$(sed -n 's/.* setcap \([a-z_,]*\)=ep .*/\1/p' "$TREE/infra/docker/agent.Dockerfile")

WORK=$(mktemp -d "${TMPDIR:-/tmp}/causeway-estate.XXXXXX")
cleanup() {
  stop "$WORK/server.pid" "$WORK" TERM
  rm -rf "$WORK"
}
trap cleanup EXIT

manifests() {
  local of
  for of in base overlays/small overlays/production; do
    kustomize build "$TREE/infra/kubernetes/$of" >"$WORK/${of##*/}.yaml"
    "$ESTATE_VENV/bin/kubernetes-validate" --strict --quiet -k "$KUBERNETES" "$WORK/${of##*/}.yaml"
    "$PYTHON" "$HERE/estate/kubernetes.py" "$WORK/${of##*/}.yaml"
  done
}

# Not interpolated: the loader's own program looks for variables nowhere. compose.py holds them against env.example.
compose() {
  (cd "$TREE/infra/compose" && compose-spec -no-interpolation -format json compose.yaml) >"$WORK/compose.json"
  "$PYTHON" "$HERE/estate/compose.py" "$WORK/compose.json" "$TREE/infra/compose"
}

# agent_in_its_image ROOT: the probes load as user 65532, with the capabilities of the image's program and no others
agent_in_its_image() {
  local root=$1 port pid i
  if [ ! -e /sys/kernel/btf/vmlinux ]; then echo "images: the kernel has no BTF, so that no probe was loaded"; return; fi
  port=$(claim_port "$WORK")
  # As infra/docker/agent.Dockerfile does, and as a container runtime mounts them.
  install -d -m 750 -o 65532 -g 65532 "$root/var/lib/causeway"
  install -d "$root/proc" "$root/sys"
  setcap "$AGENT_CAPABILITIES=ep" "$root/usr/bin/causeway-agent"
  # The last three of the set are for chroot(1) itself, which gives them up with its user. No broker is there: agents wait for one.
  # shellcheck disable=SC2016  # the inner shell expands it
  unshare --mount bash -c 'mount --rbind /proc "$1/proc"; mount --rbind /sys "$1/sys"
    exec setpriv --inh-caps=-all --bounding-set="-all,$3,+sys_chroot,+setuid,+setgid" chroot --userspec=65532:65532 "$1" \
      /usr/bin/causeway-agent --set kafka.brokers=127.0.0.1:1 --set admin.port="$2" --set agent.drain_timeout=1s' \
    agent "$root" "$port" "${AGENT_CAPABILITIES//cap_/+}" >"$WORK/agent.log" 2>&1 </dev/null &
  pid=$!
  for ((i = 0; i < 150; i++)); do
    if http_ok "http://127.0.0.1:$port/readyz" 2>/dev/null || ! kill -0 "$pid" 2>/dev/null; then break; fi
    sleep 0.2
  done
  http_ok "http://127.0.0.1:$port/readyz" || { tail -n 5 "$WORK/agent.log" >&2; die "the agent loads no probes in its image"; }
  kill "$pid"
  wait "$pid" || { tail -n 5 "$WORK/agent.log" >&2; die "the agent did not end in order"; }
  echo "images: the agent loads its probes as 65532 with $AGENT_CAPABILITIES"
}

images() {
  "$ESTATE_VENV/bin/hadolint" --no-color "$TREE"/infra/docker/*.Dockerfile
  "$PYTHON" "$HERE/estate/dockerfiles.py" "$TREE"/infra/docker/*.Dockerfile
  if [ "$(id -u)" != 0 ]; then echo "images: not root, so that no root file system was entered"; return; fi
  local service root program
  for service in agent ingest; do
    root=$WORK/image-$service program=causeway-$service
    "$TREE/infra/docker/root.sh" "$PROGRAMS/$program" "$root"
    chroot --userspec=65532:65532 "$root" "/usr/bin/$program" --version >"$WORK/version" || die "$program does not start in its image"
    if [ -e "$root/bin" ] || [ -e "$root/usr/bin/sh" ]; then die "the image of $service has a shell"; fi
    if [ "$service" = agent ]; then agent_in_its_image "$root"; fi
    # Without its libraries the program must not start, or the check above checks nothing.
    rm -r "${root:?}/lib"
    if chroot --userspec=65532:65532 "$root" "/usr/bin/$program" --version >/dev/null 2>&1; then die "$program has no libraries"; fi
    rm -rf "$root"
    echo "images: $(cat "$WORK/version") runs as 65532 in a root file system of itself and its libraries"
  done
}

# exposure UNIT: ten times the level, as a whole number
exposure() {
  systemd-analyze security --offline=true --root="$WORK/units" --no-pager "$1" 2>/dev/null |
    sed -n 's/.*Overall exposure level.*: \([0-9]*\)\.\([0-9]\).*/\1\2/p'
}

units() {
  local system=$WORK/units/usr/lib/systemd/system unit program found limit
  install -d "$system" "$WORK/units/usr/bin"
  # The targets that every unit depends on, explicitly or by default.
  cp /lib/systemd/system/{sysinit,basic,multi-user,network,network-online,shutdown}.target "$system"
  cp "$TREE"/infra/systemd/*.service "$system"
  for unit in "$TREE"/infra/systemd/*.service; do
    unit=$(basename "$unit") program=${unit%.service} limit=$EXPOSURE_SERVICE
    # `verify` wants the program to be there; which one it is does not matter to it.
    install -m 755 /bin/true "$WORK/units/usr/bin/$program"
    # It ends with 0 for a key that it does not know, and only says so.
    found=$(systemd-analyze verify --root="$WORK/units" "$unit" 2>&1) || true
    [ -z "$found" ] || die "$unit: $found"
    if [ "$program" = causeway-agent ]; then limit=$EXPOSURE_AGENT; fi
    (($(exposure "$unit") <= limit)) || die "$unit has an exposure of $(exposure "$unit"), over $limit: systemd-analyze security"
  done
  sed 's/^User=/Uzer=/' "$system/causeway-query.service" >"$system/planted.service"
  [ -n "$(systemd-analyze verify --root="$WORK/units" planted.service 2>&1)" ] || die "a unit with an unknown key passes"
  sed '/^CapabilityBoundingSet=/d; /^ProtectSystem=/d' "$system/causeway-query.service" >"$system/planted.service"
  (($(exposure planted.service) > EXPOSURE_SERVICE)) || die "a unit with every capability passes"
  echo "units: verified, with an exposure of at most $EXPOSURE_SERVICE of 100, the agent $EXPOSURE_AGENT"
}

# What `docker build` sends: every crate of the workspace must be in it.
build_context() {
  local context=$WORK/context
  mkdir "$context"
  sed -n 's/^!//p' "$TREE/.dockerignore" |
    (cd "$TREE" && xargs git ls-files -z --cached --others --exclude-standard | tar c --null --files-from=-) | tar x -C "$context"
  (cd "$context" && cargo metadata --locked --offline --no-deps --format-version 1 >/dev/null) || die ".dockerignore leaves out a crate"
  echo "build context: $(du -sh "$context" | cut -f1) with every crate"
}

configuration() {
  "$PYTHON" "$HERE/estate/configuration.py" "$PROGRAMS" "$TREE" \
    "$WORK"/{base,small,production}.yaml "$WORK/compose.json" "$TREE/infra/systemd/causeway.toml"
}

# The folder of a local mirror of providers, where there is one.
plugins() {
  local dir
  for dir in "${TF_PLUGINS:-}" /opt/tf-plugins "$HOME/.terraform.d/plugins" {/usr/local,/usr}/share/terraform/plugins; do
    if [ -n "$dir" ] && compgen -G "$dir/*/hashicorp/aws/5.*" >/dev/null; then echo "$dir"; return; fi
  done
}

# terraform_ ARGUMENT...: what it prints is shown where it fails
terraform_() {
  local status=0
  terraform -chdir="$WORK/terraform" "$@" >"$WORK/terraform.log" 2>&1 </dev/null || status=$?
  if [ "$status" != 0 ]; then tail -n 40 "$WORK/terraform.log" >&2; fi
  return "$status"
}

# Offline where a mirror is there. The lock file is written to the copy: it would name this machine's platform only.
terraform_init() {
  local mirror
  command -v terraform >/dev/null || die "terraform not found: install Terraform 1.11 or newer from its vendor's package repository"
  # A variable that names a file that is not there makes every command warn.
  [ -f "${TF_CLI_CONFIG_FILE:-/}" ] || unset TF_CLI_CONFIG_FILE
  export TF_IN_AUTOMATION=1 CHECKPOINT_DISABLE=1
  cp -r "$TREE/terraform" "$WORK/terraform"
  rm -rf "$WORK/terraform/.terraform" "$WORK/terraform/.terraform.lock.hcl"
  mirror=$(plugins)
  terraform_ init -input=false -no-color ${mirror:+-plugin-dir="$mirror"} ||
    die "terraform init failed: where the registry of providers cannot be reached, make a mirror on another machine with
  terraform -chdir=terraform providers mirror DIR      # hashicorp/aws, 5.100.0 or a newer 5
and set TF_PLUGINS=DIR (now: ${mirror:-none found})"
}

terraform_static() {
  terraform_ fmt -check -recursive -diff || die "run terraform fmt -recursive terraform"
  terraform_ validate -no-color || die "terraform validate"
  echo "terraform: formatted and valid"
}

# Started with every service that Terraform asks for; names and keys are for all clients of AWS that this script runs.
server() {
  local port
  port=$(claim_port "$WORK")
  spawn "$WORK/server.pid" "$WORK/server.log" "$VENV/bin/python" "$HERE/estate/server.py" --port "$port" --mark "$WORK"
  wait_for "server" "$WORK/server.pid" "$WORK" "$WORK/server.log" port_open "$port" >/dev/null
  export AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
  export AWS_REGION=us-east-1 AWS_DEFAULT_REGION=us-east-1 AWS_EC2_METADATA_DISABLED=true
}

# Applied and planned again; the plan of a whole estate and the state of the applied one are held against the laws; then used.
terraform_applied() {
  local t0 status=0 local_=(-input=false -no-color -parallelism=40 -var-file=examples/local.tfvars)
  server
  t0=$(now_ms)
  terraform_ apply -auto-approve "${local_[@]}" || die "terraform apply"
  echo "terraform: $(grep -o 'Resources: .*' "$WORK/terraform.log" | tail -n 1) In $((($(now_ms) - t0) / 1000)) s."
  t0=$(now_ms)
  # 2: there is something to change.
  terraform_ plan -detailed-exitcode "${local_[@]}" || status=$?
  [ "$status" = 0 ] || die "the second plan is not empty (exit code $status)"
  echo "terraform: the second plan is empty, in $((($(now_ms) - t0) / 1000)) s"
  terraform -chdir="$WORK/terraform" show -json >"$WORK/state.json"
  # A state of its own: nothing of this one is there.
  terraform_ plan -state=none.tfstate -input=false -no-color -var-file=examples/production.tfvars -out=production.plan ||
    die "terraform plan"
  terraform -chdir="$WORK/terraform" show -json production.plan >"$WORK/plan.json"
  "$PYTHON" "$HERE/estate/terraform.py" "$WORK/state.json" "$WORK/plan.json"
  # Last: they change what was applied.
  terraform -chdir="$WORK/terraform" output -json >"$WORK/outputs.json"
  "$VENV/bin/python" "$HERE/estate/applied.py" <"$WORK/outputs.json"
  "$VENV/bin/python" "$HERE/estate/roles.py" <"$WORK/outputs.json"
}

need kustomize compose-spec systemd-analyze "$PYTHON" "$VENV/bin/python"
terraform_init
terraform_static
# The provider waits for most of its time: the other checks run meanwhile.
terraform_applied >"$WORK/applied.log" 2>&1 &
APPLY=$!
manifests
compose
images
units
build_context
configuration
wait "$APPLY" || { cat "$WORK/applied.log" >&2; die "the estate could not be applied"; }
cat "$WORK/applied.log"
echo "estate: terraform/ and infra/ hold"
