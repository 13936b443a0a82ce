// A fuzzer's bytes as a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "services/core/io/file.h"

namespace odmoe {

// Refers to the bytes, so that reading past them is seen by the sanitizer.
std::unique_ptr<RandomAccessFile> FuzzFile(const uint8_t* data, size_t size);

// Ends the process where `condition` is false: the fuzzer's way to report a finding.
void Require(bool condition, const char* what);

}  // namespace odmoe
