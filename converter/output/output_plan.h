// What a conversion will write, laid out before the first byte: files, and in each the items that
// make it up. WriteOutput carries it out.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/core/io/file.h"

namespace odmoe {

// Takes the next bytes of what is being made.
using ByteSink = std::function<absl::Status(absl::Span<const std::byte>)>;

// Bytes of an item, in one of two ways. What it refers to outlives the plan.
struct OutputPart {
  uint64_t bytes = 0;
  // A range of a source file, copied.
  const RandomAccessFile* file = nullptr;
  uint64_t offset = 0;
  // Where `file` is null: gives all `bytes` in order, a few MiB at a time at most. Called on any
  // thread, at the same time as other parts'; gives the same bytes every time. Empty for an item
  // that a group makes.
  std::function<absl::Status(const ByteSink&)> make;
};

// What is made, recorded and, after an interruption, made again as one: an expert, a tensor, or one
// expert's part of a stack of them. Its parts lie back to back.
struct OutputItem {
  std::string name;      // for people: "blk.3.ffn_up_exps.weight", "layer_03_expert_017"
  uint64_t offset = 0;   // from the file's first byte
  std::vector<OutputPart> parts;

  uint64_t bytes() const;
};

// Items, of the same file or others, that are made together out of one reading of their source.
struct OutputGroup {
  std::vector<uint32_t> items;  // by their numbers: all items by file, then item
  // Gives each item's sink its bytes, in order; an empty sink is that of an item that is there.
  // Called as OutputPart::make is.
  std::function<absl::Status(absl::Span<const ByteSink> sinks)> make;
};

// A file of known size: a header, and items that do not overlap; what is between reads as zeros.
struct OutputFile {
  std::string path;
  uint64_t bytes = 0;
  // Shared, as thousands of experts have the same one.
  std::shared_ptr<const std::string> header;
  std::vector<OutputItem> items;
};

// A small file whose text depends on the items' hashes.
struct OutputText {
  std::string path;
  std::string text;
};

// Names a conversion: equal for the same inputs, options and layout of the output.
using OutputFingerprint = std::array<uint64_t, 2>;

// The last of `texts`, or without any the first of `files`, is the completing file: it gets its
// name after all others, so that its presence says that the output is whole.
struct OutputPlan {
  std::string destination;            // for messages
  std::string journal_path;           // on the file system of the output
  // Folders to be created, parents first, and removed when the output is given up and they are
  // empty. Those without the journal in them hold nothing but this output. None for files on their
  // own.
  std::vector<std::string> folders;
  std::vector<OutputFile> files;
  std::vector<OutputGroup> groups;  // no item is in two of them
  // XXH3-64 of every item, by file, then item. Gives the texts; empty: there are none.
  std::function<absl::StatusOr<std::vector<OutputText>>(absl::Span<const uint64_t> hashes)> texts;
  OutputFingerprint fingerprint = {0, 0};

  uint64_t item_count() const;
  // Bytes of all items: what progress counts.
  uint64_t data_bytes() const;
};

// Where the journal of a conversion to `destination` lies: inside a model directory, beside a file.
std::string JournalPath(absl::string_view destination, bool is_file);

// Sets plan.fingerprint: hashes the plan's files, headers and items, `options` (whatever else
// decides the bytes), the version of this code, and of each source its path, size, time of last
// writing and first bytes. Errors of reading the sources.
absl::Status SetFingerprint(OutputPlan& plan, absl::string_view options,
                            absl::Span<const RandomAccessFile* const> sources);

}  // namespace odmoe
