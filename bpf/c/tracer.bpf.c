// SPDX-License-Identifier: GPL-2.0 OR BSD-3-Clause
/* The probes, one object: what crosses the boundary (record.h), maps (maps.h), then one family per file. */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "event_ids.h"
#include "record.h"

#include "maps.h"

#include "calls.h"
#include "sched.h"
#include "environ.h"
#include "process.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
