// A working set's experts on disk, so that a store that starts again can put them back.
//
//   8 bytes  "ODMOEWS1"
//   u32      length of the model digest        u32  number of tenants
//   u32      number of experts                 u32  length of the policy's state
//   ...      digest; per tenant u32 length and name; per expert u32 catalog index and u32 entry of
//            the tenants; the policy's state
//   u64      XXH3-64 of all before
//
// Little-endian. Experts stand in the order of how much they are wanted, the most first.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace odmoe {

struct SavedWorkingSet {
  struct Expert {
    int64_t expert = 0;   // by ExpertCatalog::IndexOf
    uint32_t tenant = 0;  // entry of `tenants`: at whose charge
    friend bool operator==(const Expert&, const Expert&) = default;
  };
  std::string model_digest;
  std::vector<std::string> tenants;
  std::vector<Expert> experts;  // most wanted first
  std::string policy_state;     // the policy's own, may be empty

  friend bool operator==(const SavedWorkingSet&, const SavedWorkingSet&) = default;
};

inline constexpr uint64_t kMaxWorkingSetFileBytes = uint64_t{256} << 20;

// Requires indices below 2^32.
std::string EncodeWorkingSet(const SavedWorkingSet& saved);
// `name` is for messages. DATA_LOSS: anything but what EncodeWorkingSet has made; experts may still
// be none of the model's, or be there twice.
absl::StatusOr<SavedWorkingSet> DecodeWorkingSet(absl::string_view bytes, absl::string_view name);

}  // namespace odmoe
