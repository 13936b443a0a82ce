#include "services/core/formats/nearest_name.h"

#include <gtest/gtest.h>

namespace odmoe {
namespace {

TEST(EditDistanceTest, CountsInsertionsDeletionsAndReplacements) {
  EXPECT_EQ(EditDistance("", ""), 0u);
  EXPECT_EQ(EditDistance("", "abc"), 3u);
  EXPECT_EQ(EditDistance("abc", ""), 3u);
  EXPECT_EQ(EditDistance("kitten", "sitting"), 3u);
  EXPECT_EQ(EditDistance("ffn_gate", "ffn_gate"), 0u);
}

TEST(NearestNameTest, TakesTheFirstOfTheNearest) {
  EXPECT_EQ(NearestName("blk.1.ffn_gate_exps.weight", {"output.weight", "blk.1.ffn_gate_exp.weight",
                                                       "blk.2.ffn_gate_exp.weight"}),
            "blk.1.ffn_gate_exp.weight");
  EXPECT_EQ(NearestName("x", {"a", "b"}), "a");
  EXPECT_EQ(NearestName("x", {}), "");
}

}  // namespace
}  // namespace odmoe
