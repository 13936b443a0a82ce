#include "clients/cli/console/table.h"

#include "gtest/gtest.h"

namespace odmoe {
namespace {

TEST(TableTest, AlignsColumnsToTheirWidestCell) {
  Table table({{"name"}, {"bytes", Table::Align::kRight}});
  table.AddRow({"short", "1"});
  table.AddRow({"much longer", "1000"});
  EXPECT_EQ(table.ToString(),
            "name         bytes\n"
            "short            1\n"
            "much longer   1000\n");
}

TEST(TableTest, LeavesTheHeaderOutWhenNoColumnHasATitle) {
  Table table(std::vector<Table::Column>(2));
  table.AddRow({"key", "value"});
  EXPECT_EQ(table.ToString(), "key  value\n");
}

TEST(TableTest, CountsCharactersAndNotBytes) {
  Table table({{"a"}, {"b"}});
  table.AddRow({"Zürich", "x"});
  table.AddRow({"Zurich", "x"});
  EXPECT_EQ(table.ToString(), "a       b\nZürich  x\nZurich  x\n");
}

TEST(TableTest, FillsMissingCellsAndDropsSurplusOnes) {
  Table table({{"a"}, {"b"}});
  table.AddRow({"1"});
  table.AddRow({"1", "2", "3"});
  EXPECT_EQ(table.ToString(), "a  b\n1\n1  2\n");
}

TEST(DisplayWidthTest, CountsUtf8Characters) {
  EXPECT_EQ(DisplayWidth(""), 0u);
  EXPECT_EQ(DisplayWidth("abc"), 3u);
  EXPECT_EQ(DisplayWidth("é—ü"), 3u);
}

}  // namespace
}  // namespace odmoe
