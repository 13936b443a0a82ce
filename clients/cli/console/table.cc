#include "clients/cli/console/table.h"

#include <algorithm>

namespace odmoe {
namespace {

void AppendLine(const std::vector<Table::Column>& columns, const std::vector<size_t>& widths,
                const std::vector<std::string>& cells, std::string* out) {
  std::string line;
  for (size_t i = 0; i < columns.size(); ++i) {
    if (i > 0) line += "  ";
    const std::string padding(widths[i] - DisplayWidth(cells[i]), ' ');
    line += columns[i].align == Table::Align::kRight ? padding + cells[i] : cells[i] + padding;
  }
  line.erase(line.find_last_not_of(' ') + 1);
  *out += line + '\n';
}

}  // namespace

size_t DisplayWidth(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

void Table::AddRow(std::vector<std::string> cells) {
  cells.resize(columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<std::string> header;
  std::vector<size_t> widths;
  bool has_header = false;
  for (const Column& column : columns_) {
    header.push_back(column.title);
    widths.push_back(DisplayWidth(column.title));
    has_header |= !column.title.empty();
  }
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], DisplayWidth(row[i]));
  }
  std::string out;
  if (has_header) AppendLine(columns_, widths, header, &out);
  for (const auto& row : rows_) AppendLine(columns_, widths, row, &out);
  return out;
}

}  // namespace odmoe
