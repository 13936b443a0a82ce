// A working set in another process on this host, read in place.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "services/core/experts/expert_store.h"

namespace odmoe {

// Connects to the store at `endpoint` ("HOST:PORT" or "unix:/path", on this host) that serves
// `model`; empty: its only one. The store's memory is mapped read-only. A hit touches shared memory
// and makes no call; the misses of an Acquire are one message.
//
// When the store goes away, what waits and what is asked fails with UNAVAILABLE; bytes that are
// pinned stay valid, since the mapping of a sealed memfd outlives its maker. Later Acquires dial
// again, a few times a second at most, and are served when a store with the same experts is back.
//
// `tenant`: on whose account, of those the store was started with; empty, or one it does not know:
// the default one.
//
// UNAVAILABLE: nobody answers, or not from this host. NOT_FOUND: it serves no such model.
// PERMISSION_DENIED: it serves listed tenants only, and not this one.
absl::StatusOr<std::unique_ptr<ExpertStore>> ConnectSharedMemoryStore(
    const std::string& endpoint, const std::string& model, const std::string& tenant = "");

}  // namespace odmoe
