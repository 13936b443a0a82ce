#include "services/expert_storage/replay/replay.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "services/core/base/units.h"

namespace odmoe {
namespace {

constexpr absl::string_view kSmall =
    "{\"model\":\"m\",\"experts\":4,\"layers\":2,\"top_k\":2,\"expert_bytes\":1000}\n"
    "{\"token\":0,\"phase\":\"prefill\",\"experts\":[[0,1]]}\n"
    "\n"
    "{\"token\":1,\"phase\":\"decode\",\"experts\":[[2,1],[3,0,3]]}\r\n"
    "{\"token\":2,\"experts\":[null,[]]}";

RouteTrace Shipped(const std::string& name) {
  return ReadRouteTrace(PosixFileSystem(), absl::StrCat(ODMOE_TEST_DATA, "/traces/", name)).value();
}

int64_t Slots(const RouteTrace& trace, absl::string_view budget) {
  return ResolveReplayBudget(ParseReplayBudget(budget).value(), trace).value();
}

ReplayResult Replayed(const RouteTrace& trace, absl::string_view policy, int64_t slots) {
  return Replay(trace, ParseReplayPolicy(policy).value(), slots).value();
}

TEST(RouteTraceTest, ReadsWhatTheFormatAllows) {
  const RouteTrace trace = ParseRouteTrace(kSmall, "t").value();
  EXPECT_EQ(trace.model, "m");
  EXPECT_EQ(trace.demand(), 4);
  EXPECT_EQ(trace.expert_bytes, 1000u);
  ASSERT_EQ(trace.tokens.size(), 3u);
  EXPECT_TRUE(trace.tokens[0].prefill);
  EXPECT_EQ(trace.tokens[1].experts, (std::vector<std::vector<int32_t>>{{2, 1}, {3, 0}}));
  EXPECT_EQ(trace.tokens[2].experts.size(), 2u);
}

TEST(RouteTraceTest, IsReadAsWritten) {
  const RouteTrace trace = ParseRouteTrace(kSmall, "t").value();
  const std::string text = FormatRouteTrace(trace);
  EXPECT_EQ(FormatRouteTrace(ParseRouteTrace(text, "again").value()), text);
}

TEST(RouteTraceTest, SaysWhatIsWrongAndWhere) {
  const std::string model = "{\"experts\":4,\"layers\":2,\"top_k\":2}\n";
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"", "empty"},
      {"[]", "line 1"},
      {"{\"experts\":4,\"layers\":2}", "top_k"},
      {"{\"experts\":4,\"layers\":2,\"top_k\":5}", "top_k"},
      {"{\"experts\":4,\"layers\":-1,\"top_k\":1}", "layers"},
      {"{\"experts\":65536,\"layers\":65536,\"top_k\":1}", "more experts than"},
      {"{\"experts\":1e9,\"layers\":2,\"top_k\":1}", "experts"},
      {model + "{\"experts\":[[4]]}", "line 2: expected experts below 4"},
      {model + "{\"experts\":[[-1]]}", "below 4"},
      {model + "{\"experts\":[[0.5]]}", "below 4"},
      {model + "{\"experts\":[[0],[0],[0]]}", "3 layers"},
      {model + "{\"experts\":[3]}", "list"},
      {model + "{\"experts\":7}", "experts"},
      {model + "{\"phase\":\"sleep\",\"experts\":[]}", "phase"},
      {model + "{\"experts\":[[0]]", "JSON"},
  };
  for (const auto& [text, message] : cases) {
    const absl::Status status = ParseRouteTrace(text, "file").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_NE(status.message().find(message), std::string::npos) << text << "\n" << status;
  }
}

TEST(ReplayBudgetTest, IsAMultipleAShareOrASize) {
  RouteTrace trace = ParseRouteTrace(kSmall, "t").value();
  EXPECT_EQ(Slots(trace, "1.5x"), 6);
  EXPECT_EQ(Slots(trace, "50%"), 4);
  EXPECT_EQ(Slots(trace, "100x"), 8);
  EXPECT_EQ(Slots(trace, "12KiB"), 3);  // a slot is whole pages
  for (const char* wrong : {"", "x", "0x", "-1x", "nanx", "infx", "1.5y", "auto", "0", "120%"}) {
    EXPECT_EQ(ParseReplayBudget(wrong).status().code(), absl::StatusCode::kInvalidArgument)
        << wrong;
  }
  EXPECT_FALSE(ResolveReplayBudget(*ParseReplayBudget("0.1x"), trace).ok());
  EXPECT_FALSE(ResolveReplayBudget(*ParseReplayBudget("1KiB"), trace).ok());
  trace.expert_bytes = 0;
  EXPECT_FALSE(ResolveReplayBudget(*ParseReplayBudget("1GiB"), trace).ok());
}

TEST(ReplayTest, CountsDecodedTokensFromAnEmptyCache) {
  RouteTrace trace = ParseRouteTrace(kSmall, "t").value();
  trace.tokens.push_back(trace.tokens[1]);
  const ReplayResult result = Replayed(trace, "lru", 4);
  EXPECT_EQ(result.tokens, 3);
  EXPECT_EQ(result.accesses, 8);
  EXPECT_EQ(result.hits, 4);
  EXPECT_EQ(result.bytes_read, 4000u);
  EXPECT_EQ(Replayed(trace, "lru", 3).hits, 2);
  trace.tokens.resize(1);
  EXPECT_EQ(Replay(trace, ReplayPolicy{}, 4).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ReplayTest, ALayerLargerThanTheCacheIsTakenInPortions) {
  RouteTrace trace = ParseRouteTrace(kSmall, "t").value();
  trace.tokens = {trace.tokens[1]};
  trace.tokens[0].experts = {{0, 1, 2, 3}, {0, 1, 2, 3}};
  for (const char* policy : {"lru", "lfu", "lfru", "next-use", "default", "belady"}) {
    const ReplayResult result = Replayed(trace, policy, 1);
    EXPECT_EQ(result.accesses, 8) << policy;
    EXPECT_EQ(result.hits, 0) << policy;
    EXPECT_EQ(result.evictions, 7) << policy;
  }
}

RouteTrace Random(uint32_t seed, int tokens) {
  RouteTrace trace;
  trace.expert_count = 10;
  trace.layer_count = 3;
  trace.top_k = 3;
  std::mt19937 random(seed);
  for (int t = 0; t < tokens; ++t) {
    RouteTrace::Token token;
    for (int layer = 0; layer < 3; ++layer) {
      std::set<int32_t> chosen;
      while (chosen.size() < 3) chosen.insert(std::min(random() % 10, random() % 10));
      token.experts.emplace_back(chosen.begin(), chosen.end());
    }
    trace.tokens.push_back(std::move(token));
  }
  return trace;
}

// LRU and Belady told anew, by looking at the whole trace.
int64_t HitsByHand(const RouteTrace& trace, int64_t slots, bool belady) {
  std::vector<std::vector<int64_t>> visits;
  for (const auto& token : trace.tokens) {
    for (size_t layer = 0; layer < token.experts.size(); ++layer) {
      visits.emplace_back();
      for (int32_t e : token.experts[layer]) visits.back().push_back(layer * 100 + e);
    }
  }
  std::map<int64_t, int64_t> last;  // resident -> when demanded
  int64_t hits = 0, clock = 0;
  for (size_t v = 0; v < visits.size(); ++v) {
    const std::set<int64_t> pinned(visits[v].begin(), visits[v].end());
    const auto rank = [&](int64_t e) -> int64_t {
      if (!belady) return -last[e];
      for (size_t next = v + 1; next < visits.size(); ++next) {
        if (std::count(visits[next].begin(), visits[next].end(), e) > 0) return next;
      }
      return visits.size();
    };
    std::vector<int64_t> missing;
    for (int64_t e : visits[v]) {
      if (!last.contains(e)) {
        missing.push_back(e);
        continue;
      }
      ++hits;
      last[e] = ++clock;
    }
    for (int64_t e : missing) {
      if (static_cast<int64_t>(last.size()) >= slots) {
        int64_t victim = -1;
        for (const auto& [r, when] : last) {
          if (!pinned.contains(r) && (victim < 0 || rank(r) > rank(victim))) victim = r;
        }
        last.erase(victim);
      }
      last[e] = ++clock;
    }
  }
  return hits;
}

TEST(ReplayTest, LruAndBeladyHitWhatTheirDefinitionsHit) {
  for (uint32_t seed = 0; seed < 6; ++seed) {
    const RouteTrace trace = Random(seed, 60);
    for (const int64_t slots : {4, 9, 13, 20, 30}) {
      EXPECT_EQ(Replayed(trace, "lru", slots).hits, HitsByHand(trace, slots, false));
      EXPECT_EQ(Replayed(trace, "belady", slots).hits, HitsByHand(trace, slots, true));
    }
  }
}

// What the default policy is held to on real routing.
void ExpectBounds(const RouteTrace& trace) {
  double way = 0.0;
  const std::set<std::string> judged = {"1.5x", "2.5x", "4x"};
  for (const char* budget : {"0.5x", "0.75x", "0.9x", "1x", "1.25x", "1.5x", "2x", "2.5x", "3x",
                             "4x", "6x", "8x"}) {
    SCOPED_TRACE(absl::StrCat(trace.model, " ", budget));
    const int64_t slots = Slots(trace, budget);
    const ReplayResult lru = Replayed(trace, "lru", slots);
    const ReplayResult belady = Replayed(trace, "belady", slots);
    const ReplayResult standard = Replayed(trace, "default", slots);
    EXPECT_GE(standard.hits, lru.hits);
    EXPECT_GE(belady.hits, standard.hits);
    if (judged.contains(budget)) way += ShareOfWay(standard, lru, belady).value() / 3.0;
    if (budget == std::string("0.9x")) {
      EXPECT_GE(double(standard.hits) / double(belady.hits), 0.70);
      EXPECT_EQ(Replayed(trace, "default", slots).hits, standard.hits);  // deterministic
      for (const char* other : {"lfu", "lfru", "next-use"}) {
        EXPECT_GE(belady.hits, Replayed(trace, other, slots).hits) << other;
        EXPECT_GE(standard.hits, Replayed(trace, other, slots).hits) << other;
      }
    }
  }
  EXPECT_GE(way, 0.38);
}

TEST(ReplayTest, TheDefaultKeepsItsBoundsOnOlmoe) { ExpectBounds(Shipped("olmoe-1b-7b.jsonl")); }

TEST(ReplayTest, TheDefaultKeepsItsBoundsOnQwen3) { ExpectBounds(Shipped("qwen3-30b-a3b.jsonl")); }

// Traces it was not made on: the same routing with every second layer left out, its layers and
// experts in another order, in halves.
TEST(ReplayTest, TheDefaultKeepsItsBoundsOnOtherShapes) {
  const RouteTrace whole = Shipped("olmoe-1b-7b.jsonl");
  RouteTrace fewer = whole;
  RouteTrace shuffled = whole;
  RouteTrace half = whole;
  fewer.layer_count /= 2;
  half.tokens.resize(whole.tokens.size() / 2);
  for (RouteTrace::Token& token : fewer.tokens) {
    for (size_t layer = 0; layer < token.experts.size() / 2; ++layer) {
      token.experts[layer] = token.experts[2 * layer + 1];
    }
    token.experts.resize(token.experts.size() / 2);
  }
  for (RouteTrace::Token& token : shuffled.tokens) {
    std::shuffle(token.experts.begin(), token.experts.end(), std::mt19937(4));
    for (auto& experts : token.experts) {
      for (int32_t& expert : experts) expert = (expert * 27 + 5) % shuffled.expert_count;
    }
  }
  for (const RouteTrace* trace : {&fewer, &shuffled, &half}) {
    for (const char* budget : {"0.5x", "0.9x", "2x", "6x"}) {
      const int64_t slots = Slots(*trace, budget);
      const ReplayResult lru = Replayed(*trace, "lru", slots);
      const ReplayResult belady = Replayed(*trace, "belady", slots);
      const ReplayResult standard = Replayed(*trace, "default", slots);
      EXPECT_GE(standard.hits, lru.hits) << budget;
      if (budget == std::string("0.9x")) {
        EXPECT_GE(double(standard.hits) / double(belady.hits), 0.70);
      }
    }
  }
}

// Routing of a kind: the experts of a token's layer.
using Routing = std::function<std::set<int32_t>(int token, int layer, std::mt19937& random)>;

RouteTrace Made(int32_t layers, int32_t experts, int32_t top_k, const Routing& routing) {
  RouteTrace trace;
  trace.layer_count = layers;
  trace.expert_count = experts;
  trace.top_k = top_k;
  std::mt19937 random(1);
  for (int t = 0; t < 160; ++t) {
    RouteTrace::Token& token = trace.tokens.emplace_back();
    for (int layer = 0; layer < layers; ++layer) {
      std::set<int32_t> chosen = routing(t, layer, random);
      while (static_cast<int32_t>(chosen.size()) < top_k) {
        chosen.insert(static_cast<int32_t>(random() % experts));
      }
      token.experts.emplace_back(chosen.begin(), chosen.end());
    }
  }
  return trace;
}

// A few experts, which depend on the topic, most of the time.
Routing Topics(int tokens_each) {
  return [tokens_each](int token, int layer, std::mt19937& random) {
    std::set<int32_t> chosen;
    while (chosen.size() < 2) {
      const int32_t rank = static_cast<int32_t>(std::min({random() % 16, random() % 16,
                                                          random() % 16}));
      chosen.insert((rank * 5 + token / tokens_each * 7 + layer) % 16);
    }
    return chosen;
  };
}

// The last token's experts, each with this chance in percent, and others by chance.
Routing Sticky(uint32_t percent) {
  auto last = std::make_shared<std::map<int, std::set<int32_t>>>();
  return [last, percent](int, int layer, std::mt19937& random) {
    std::set<int32_t>& chosen = (*last)[layer];
    std::erase_if(chosen, [&](int32_t) { return random() % 100 >= percent; });
    while (chosen.size() < 2) chosen.insert(static_cast<int32_t>(random() % 16));
    return chosen;
  };
}

// Routing that no model has, or none alone: nothing to learn from, everything anew, all the same.
// At exactly one token's demand LRU holds the last token's experts and no others; where those are
// the best guess, as in the last two, or as good as any, the default is a little below it.
TEST(ReplayTest, TheDefaultIsNotBelowLruOnMadeRouting) {
  const auto by_chance = [](int, int, std::mt19937&) { return std::set<int32_t>{}; };
  struct Case {
    const char* name;
    RouteTrace trace;
    double below;  // of the accesses, that it may be below LRU by
  };
  const std::vector<Case> cases = {
      {"by chance", Made(6, 16, 2, by_chance), 0.015},
      {"one topic, then another", Made(6, 16, 2, Topics(80)), 0.0},
      {"topics that come back", Made(6, 16, 2, Topics(20)), 0.01},
      {"a hot layer among cold ones",
       Made(6, 16, 2, [](int, int layer, std::mt19937&) {
         return layer == 3 ? std::set<int32_t>{1, 4} : std::set<int32_t>{};
       }), 0.02},
      {"a scan", Made(6, 16, 2, [](int token, int, std::mt19937&) {
         return std::set<int32_t>{2 * token % 16, (2 * token + 1) % 16};
       }), 0.0},
      {"a loop a little longer than the cache", Made(6, 16, 2, [](int token, int, std::mt19937&) {
         return std::set<int32_t>{token % 5, 5 + token % 5};
       }), 0.0},
      {"top-1", Made(12, 32, 1, [](int, int layer, std::mt19937& random) {
         const auto rank = static_cast<int32_t>(std::min(random() % 32, random() % 32));
         return std::set<int32_t>{(rank * 3 + layer) % 32};
       }), 0.0},
      {"2 layers of 4", Made(2, 4, 1, by_chance), 0.02},
      // LRU is as good as Belady here, and every token that is learned from is misleading.
      {"mostly the last token's", Made(6, 16, 2, Sticky(80)), 0.02},
      {"the same for 40 tokens, then none of it", Made(6, 16, 2, [](int token, int, std::mt19937&) {
         return std::set<int32_t>{token / 40 * 2, token / 40 * 2 + 1};
       }), 0.04},
  };
  for (const auto& [name, trace, below] : cases) {
    for (const char* budget : {"0.5x", "0.9x", "1x", "1.5x", "2.5x", "6x"}) {
      const int64_t slots = Slots(trace, budget);
      const ReplayResult lru = Replayed(trace, "lru", slots);
      const ReplayResult standard = Replayed(trace, "default", slots);
      EXPECT_GE(standard.hits + below * double(lru.accesses), lru.hits) << name << " " << budget;
    }
  }
}

}  // namespace
}  // namespace odmoe
