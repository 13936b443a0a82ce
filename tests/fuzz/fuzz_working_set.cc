// A saved working set: one that is accepted is encoded to the same bytes again. The hash is made
// right first, or nothing would get past it.
#include <cstring>
#include <string>

#include "services/expert_storage/restart/working_set_file.h"
#include "tests/fuzz/fuzz_file.h"
#include "xxhash.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  std::string bytes(reinterpret_cast<const char*>(data), size);
  DecodeWorkingSet(bytes, "input").status().IgnoreError();
  if (size < sizeof(uint64_t)) return 0;
  const size_t hashed = size - sizeof(uint64_t);
  const uint64_t hash = XXH3_64bits(bytes.data(), hashed);
  std::memcpy(bytes.data() + hashed, &hash, sizeof(hash));
  const auto saved = DecodeWorkingSet(bytes, "input");
  if (!saved.ok()) return 0;
  Require(EncodeWorkingSet(*saved) == bytes, "an accepted working set has another encoding");
  for (const SavedWorkingSet::Expert& expert : saved->experts) {
    Require(expert.tenant < saved->tenants.size(), "an accepted expert is at nobody's charge");
  }
  return 0;
}
