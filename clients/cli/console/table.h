// Text in columns, for people.
#pragma once

#include <string>
#include <vector>

namespace odmoe {

// Rows under a header; each column as wide as its widest cell, two spaces apart. Widths count UTF-8
// characters. Not thread-safe.
class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;  // all empty: no header line
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

  // Missing cells are empty; surplus ones are dropped.
  void AddRow(std::vector<std::string> cells);
  // Lines ending in '\n', without trailing spaces.
  std::string ToString() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Characters of UTF-8 text: the bytes that do not continue one.
size_t DisplayWidth(const std::string& text);

}  // namespace odmoe
