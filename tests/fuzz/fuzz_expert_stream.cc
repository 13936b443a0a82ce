// A message of ReadExpert's stream, however the transport has cut it: what is taken apart without
// copying is what protobuf's own parser finds.
#include <algorithm>
#include <string>
#include <vector>

#include "clients/cpp/expert_stream.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  if (size == 0) return 0;
  // The first byte is the length of the slices.
  const size_t step = std::max<size_t>(1, data[0]);
  std::vector<grpc::Slice> slices;
  for (size_t at = 1; at < size; at += step) {
    slices.emplace_back(data + at, std::min(step, size - at));
  }
  const auto part = ParseExpertStreamPart(grpc::ByteBuffer(slices.data(), slices.size()));
  if (!part.ok()) return 0;
  expert_storage::v1::ReadExpertResponse response;
  Require(response.ParseFromArray(data + 1, static_cast<int>(size - 1)),
          "what was taken apart is no message");
  Require(part->header.has_value() == response.has_header(), "a header is not one");
  std::string chunk;
  for (const auto piece : part->chunk) {
    chunk.append(reinterpret_cast<const char*>(piece.data()), piece.size());
  }
  Require(chunk.size() == part->chunk_bytes, "a chunk of another size than said");
  if (!part->header) Require(chunk == response.chunk(), "a chunk of other bytes");
  return 0;
}
