// An importance matrix that is accepted gives each tensor's values, or says which is bad.
#include "converter/quantize/importance_matrix.h"
#include "tests/fuzz/fuzz_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace odmoe;
  const auto matrix = ImportanceMatrix::Open(FuzzFile(data, size));
  if (!matrix.ok()) return 0;
  Require((*matrix)->size() > 0, "an accepted matrix without entries");
  for (const std::string& name : (*matrix)->names()) {
    Require(!(*matrix)->counts(name)->empty(), "a tensor without counts");
    for (const int64_t columns : {1, 2, 32}) {
      const auto values = (*matrix)->ForTensor(name, columns, 2, 1);
      Require(!values.ok() || values->empty() || int64_t(values->size()) == columns,
              "values of another length");
    }
  }
  return 0;
}
