// A file of log-probabilities that is accepted has every row it tells of.
#include <cmath>
#include <vector>

#include "converter/evaluate/logits_file.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const auto file = LogitsFile::Open(FuzzFile(data, size));
  if (!file.ok()) return 0;
  const LogitsFileHeader& header = (*file)->header();
  std::vector<float> row(header.vocabulary);
  const int64_t last = ScoredPositionsOf(header.chunk_tokens).count - 1;
  for (const int64_t position : {int64_t{0}, last}) {
    const absl::Status status =
        (*file)->ReadRow(header.chunks - 1, position, absl::MakeSpan(row));
    Require(status.ok() || status.code() == absl::StatusCode::kDataLoss, "a row that is missing");
    if (!status.ok()) continue;
    for (const float logprob : row) Require(std::isfinite(logprob), "a row without numbers");
  }
  return 0;
}
