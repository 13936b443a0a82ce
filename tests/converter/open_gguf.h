// Opens a GGUF file that a test has just made.
#pragma once

#include <memory>
#include <string>

#include <gtest/gtest.h>

#include "services/core/formats/gguf_model.h"
#include "services/core/io/file.h"

namespace odmoe {

inline std::unique_ptr<GgufModel> OpenGguf(const std::string& path) {
  auto model = GgufModel::Open(PosixFileSystem(), path);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

}  // namespace odmoe
