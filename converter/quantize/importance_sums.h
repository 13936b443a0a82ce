// An importance matrix being computed: sums of squared inputs, gathered while a model reads.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "services/core/generation/input_observer.h"
#include "services/core/io/file.h"

namespace odmoe {

// Where the sums come from, as the file tells it.
struct ImportanceOrigin {
  std::vector<std::string> datasets;  // the texts' names
  uint32_t chunk_count = 0;
  uint32_t chunk_size = 0;  // tokens
};

// Give it to a model as its observer, let the model read, write the file. Keeps what the reference
// tool keeps: products with the weights of layers ("blk.*") and, where asked for, of the output
// head; an expert's sums and count apart, a tensor's heads side by side under one count. Not
// thread-safe.
class ImportanceSums : public InputObserver {
 public:
  explicit ImportanceSums(bool with_output = false) : with_output_(with_output) {}

  void OnInput(const ProductInput& input) override;

  // DATA_LOSS: an input was not a number, or a tensor changed its size; names the tensor.
  const absl::Status& status() const { return status_; }
  // Weights seen so far.
  size_t size() const { return entries_.size(); }
  // Tensors of which some experts have not been chosen yet, and how many of them.
  std::map<std::string, int64_t> UnseenExperts() const;

  // Writes the GGUF form, atomically. FAILED_PRECONDITION: no product was seen. Also status(), and
  // the file system's errors.
  absl::Status Write(FileSystem& fs, const std::string& path, const ImportanceOrigin& origin) const;

 private:
  struct Entry {
    int64_t columns = 0;
    std::vector<float> sums;      // [matrices, columns]
    std::vector<int64_t> counts;  // of rows: [matrices] where they are experts, else one
  };

  const bool with_output_;
  std::map<std::string, Entry, std::less<>> entries_;
  std::vector<float> squares_;  // [columns] of the rows at hand
  absl::Status status_;
};

}  // namespace odmoe
