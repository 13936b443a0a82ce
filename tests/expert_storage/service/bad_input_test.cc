// Every unary call and ReadExpert with requests that cannot be served.
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "clients/cpp/expert_storage_admin.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "odmoe/expert_storage/v1/expert_storage_service.grpc.pb.h"
#include "services/core/rpc/channel.h"
#include "tests/support/expert_directory.h"
#include "tests/support/expert_storage_server.h"

namespace odmoe {
namespace {

namespace v1 = expert_storage::v1;
using grpc::StatusCode;

struct Case {
  const char* name;
  std::function<grpc::Status(v1::ExpertStorageService::Stub&)> call;
  StatusCode code;
};

void Arm(grpc::ClientContext& context) { SetDeadline(context, absl::Now() + absl::Minutes(1)); }

grpc::Status OpenModel(v1::ExpertStorageService::Stub& stub,
                       const std::function<void(v1::OpenModelRequest&)>& change) {
  v1::OpenModelRequest request;
  change(request);
  v1::OpenModelResponse response;
  grpc::ClientContext context;
  Arm(context);
  return stub.OpenModel(&context, request, &response);
}

grpc::Status ReadExpert(v1::ExpertStorageService::Stub& stub,
                        const std::function<void(v1::ReadExpertRequest&)>& change) {
  v1::ReadExpertRequest request;
  change(request);
  grpc::ClientContext context;
  Arm(context);
  const auto reader = stub.ReadExpert(&context, request);
  v1::ReadExpertResponse response;
  while (reader->Read(&response)) {
  }
  return reader->Finish();
}

// One token for expert 1 of layer 0, changed.
grpc::Status Execute(v1::ExpertStorageService::Stub& stub,
                     const std::function<void(v1::ExecuteRequest&)>& change) {
  v1::ExecuteRequest request;
  request.set_token_count(1);
  request.set_hidden(std::string(MemoryExpertSource::RandomOptions().dim * sizeof(float), '\0'));
  request.add_experts()->set_expert(1);
  request.mutable_experts(0)->add_tokens(0);
  change(request);
  grpc::ClientContext context;
  Arm(context);
  const auto reader = stub.Execute(&context, request);
  v1::ExecuteResponse response;
  while (reader->Read(&response)) {
  }
  return reader->Finish();
}

template <typename Request, typename Response>
grpc::Status Named(v1::ExpertStorageService::Stub& stub,
                   grpc::Status (v1::ExpertStorageService::Stub::*method)(
                       grpc::ClientContext*, const Request&, Response*),
                   const std::string& model) {
  Request request;
  request.set_model(model);
  Response response;
  grpc::ClientContext context;
  Arm(context);
  return (stub.*method)(&context, request, &response);
}

using Stub = v1::ExpertStorageService::Stub;

class BadInputTest : public ::testing::Test {
 protected:
  BadInputTest() : server_({{directory_ / "root"}, true}, /*compute_threads=*/1) {
    truth_ = WriteRandomExperts(directory_ / "root/model", {});
    stub_ = v1::ExpertStorageService::NewStub(MakeChannel(server_.endpoint).value());
  }
  void OpenTheModel() {
    const auto admin = ExpertStorageAdmin::Connect(server_.endpoint).value();
    const auto model = admin->OpenModel(directory_ / "root/model", ParseBudget("100%").value(),
                                        SourceKind::kAuto);
    ASSERT_TRUE(model.ok()) << model.status();
  }
  void ExpectEach(const std::vector<Case>& cases) {
    for (const Case& c : cases) {
      const grpc::Status status = c.call(*stub_);
      EXPECT_EQ(status.error_code(), c.code) << c.name << ": " << status.error_message();
      EXPECT_FALSE(status.error_message().empty()) << c.name;
    }
  }

  TemporaryDirectory directory_;
  std::unique_ptr<MemoryExpertSource> truth_;
  ExpertStorageTestServer server_;
  std::unique_ptr<Stub> stub_;
};

TEST_F(BadInputTest, ResizeBudgetRefusesWhatIsNoBudget) {
  OpenTheModel();
  const auto resize = [](const std::function<void(v1::ResizeBudgetRequest&)>& change) {
    return [change](Stub& stub) {
      v1::ResizeBudgetRequest request;
      change(request);
      v1::ResizeBudgetResponse response;
      grpc::ClientContext context;
      Arm(context);
      return stub.ResizeBudget(&context, request, &response);
    };
  };
  ExpectEach({
      {"no bytes", resize([](auto& r) { r.mutable_budget()->set_bytes(0); }),
       StatusCode::INVALID_ARGUMENT},
      {"negative", resize([](auto& r) { r.mutable_budget()->set_bytes(-1); }),
       StatusCode::INVALID_ARGUMENT},
      {"not a number",
       resize([](auto& r) { r.mutable_budget()->set_percent(std::nan("")); }),
       StatusCode::INVALID_ARGUMENT},
      {"both", resize([](auto& r) {
         r.set_total(true);
         r.set_model("model");
       }),
       StatusCode::INVALID_ARGUMENT},
      {"timeout", resize([](auto& r) { r.mutable_timeout()->set_seconds(-5); }),
       StatusCode::INVALID_ARGUMENT},
      {"another model", resize([](auto& r) { r.set_model("other"); }), StatusCode::NOT_FOUND},
      {"long name", resize([](auto& r) { r.set_model(std::string(200, 'x')); }),
       StatusCode::INVALID_ARGUMENT},
      {"below a slot", resize([](auto& r) { r.mutable_budget()->set_bytes(1); }),
       StatusCode::RESOURCE_EXHAUSTED},
      {"below a slot in all", resize([](auto& r) {
         r.set_total(true);
         r.mutable_budget()->set_bytes(1);
       }),
       StatusCode::RESOURCE_EXHAUSTED},
  });
}

TEST_F(BadInputTest, OpenModelRefusesWhatItCannotOpen) {
  const std::string model = directory_ / "root/model";
  ExpectEach({
      {"empty", [](Stub& s) { return OpenModel(s, [](auto&) {}); }, StatusCode::INVALID_ARGUMENT},
      {"relative", [](Stub& s) { return OpenModel(s, [](auto& r) { r.set_path("root/model"); }); },
       StatusCode::INVALID_ARGUMENT},
      {"long",
       [](Stub& s) {
         return OpenModel(s, [](auto& r) { r.set_path("/" + std::string(5000, 'x')); });
       },
       StatusCode::INVALID_ARGUMENT},
      {"outside", [](Stub& s) { return OpenModel(s, [](auto& r) { r.set_path("/etc"); }); },
       StatusCode::PERMISSION_DENIED},
      {"climbs out",
       [&](Stub& s) {
         return OpenModel(s, [&](auto& r) { r.set_path(directory_ / "root/../.."); });
       },
       StatusCode::PERMISSION_DENIED},
      {"missing",
       [&](Stub& s) {
         return OpenModel(s, [&](auto& r) { r.set_path(directory_ / "root/none"); });
       },
       StatusCode::NOT_FOUND},
      {"negative budget",
       [&](Stub& s) {
         return OpenModel(s, [&](auto& r) {
           r.set_path(model);
           r.mutable_budget()->set_bytes(-1);
         });
       },
       StatusCode::INVALID_ARGUMENT},
      {"no percentage",
       [&](Stub& s) {
         return OpenModel(s, [&](auto& r) {
           r.set_path(model);
           r.mutable_budget()->set_percent(101);
         });
       },
       StatusCode::INVALID_ARGUMENT},
      {"budget below a slot",
       [&](Stub& s) {
         return OpenModel(s, [&](auto& r) {
           r.set_path(model);
           r.mutable_budget()->set_bytes(1);
         });
       },
       StatusCode::RESOURCE_EXHAUSTED},
      {"unknown source",
       [&](Stub& s) {
         return OpenModel(s, [&](auto& r) {
           r.set_path(model);
           r.set_source(static_cast<v1::SourceKind>(77));
         });
       },
       StatusCode::INVALID_ARGUMENT},
  });
  WriteFileOrDie(directory_ / "root/model/experts/registry.json", "{\"layer_00");
  ExpectEach({{"registry is no JSON",
               [&](Stub& s) { return OpenModel(s, [&](auto& r) { r.set_path(model); }); },
               StatusCode::INVALID_ARGUMENT}});
}

grpc::Status WatchStats(Stub& stub, const std::function<void(v1::WatchStatsRequest&)>& change) {
  v1::WatchStatsRequest request;
  change(request);
  grpc::ClientContext context;
  Arm(context);
  const auto reader = stub.WatchStats(&context, request);
  v1::WatchStatsResponse response;
  while (reader->Read(&response)) {
  }
  return reader->Finish();
}

TEST_F(BadInputTest, WatchStatsRefusesWhatItCannotWatch) {
  OpenTheModel();
  const auto interval = [](int64_t seconds, int32_t nanos) {
    return [=](Stub& s) {
      return WatchStats(s, [=](auto& r) {
        r.mutable_interval()->set_seconds(seconds);
        r.mutable_interval()->set_nanos(nanos);
      });
    };
  };
  ExpectEach({
      {"other model", [](Stub& s) { return WatchStats(s, [](auto& r) { r.set_model("x"); }); },
       StatusCode::NOT_FOUND},
      {"long model",
       [](Stub& s) {
         return WatchStats(s, [](auto& r) { r.set_model(std::string(500, 'x')); });
       },
       StatusCode::INVALID_ARGUMENT},
      {"no interval at all", interval(0, 0), StatusCode::INVALID_ARGUMENT},
      {"too short", interval(0, 49'999'999), StatusCode::INVALID_ARGUMENT},
      {"too long", interval(3601, 0), StatusCode::INVALID_ARGUMENT},
      {"negative", interval(-1, 0), StatusCode::INVALID_ARGUMENT},
      {"strange nanoseconds", interval(1, -1), StatusCode::INVALID_ARGUMENT},
      {"beyond time", interval(INT64_MAX, 999'999'999), StatusCode::INVALID_ARGUMENT},
  });
}

TEST_F(BadInputTest, WithoutAModelNothingIsFound) {
  ExpectEach({
      {"stats", [](Stub& s) { return Named(s, &Stub::Stats, ""); }, StatusCode::NOT_FOUND},
      {"describe", [](Stub& s) { return Named(s, &Stub::DescribeModel, ""); },
       StatusCode::NOT_FOUND},
      {"close", [](Stub& s) { return Named(s, &Stub::CloseModel, ""); }, StatusCode::NOT_FOUND},
      {"read", [](Stub& s) { return ReadExpert(s, [](auto&) {}); }, StatusCode::NOT_FOUND},
  });
  EXPECT_TRUE(ExpertStorageAdmin::Connect(server_.endpoint).value()->ListModels()->empty());
}

TEST_F(BadInputTest, NamesAreCheckedAndModelsFoundByThem) {
  OpenTheModel();
  const std::string longest(500, 'x');
  ExpectEach({
      {"stats, other", [](Stub& s) { return Named(s, &Stub::Stats, "x"); }, StatusCode::NOT_FOUND},
      {"stats, long", [&](Stub& s) { return Named(s, &Stub::Stats, longest); },
       StatusCode::INVALID_ARGUMENT},
      {"describe, other", [](Stub& s) { return Named(s, &Stub::DescribeModel, "x"); },
       StatusCode::NOT_FOUND},
      {"describe, long", [&](Stub& s) { return Named(s, &Stub::DescribeModel, longest); },
       StatusCode::INVALID_ARGUMENT},
      {"close, other", [](Stub& s) { return Named(s, &Stub::CloseModel, "x"); },
       StatusCode::NOT_FOUND},
      {"close, long", [&](Stub& s) { return Named(s, &Stub::CloseModel, longest); },
       StatusCode::INVALID_ARGUMENT},
  });
  EXPECT_TRUE(Named(*stub_, &Stub::Stats, "model").ok());
  EXPECT_TRUE(Named(*stub_, &Stub::Stats, "").ok());
}

TEST_F(BadInputTest, ReadExpertRefusesWhatIsNotThere) {
  OpenTheModel();
  const int64_t bytes = static_cast<int64_t>(truth_->catalog().max_expert_bytes());
  ExpectEach({
      {"other model", [](Stub& s) { return ReadExpert(s, [](auto& r) { r.set_model("x"); }); },
       StatusCode::NOT_FOUND},
      {"long model",
       [](Stub& s) {
         return ReadExpert(s, [](auto& r) { r.set_model(std::string(500, 'x')); });
       },
       StatusCode::INVALID_ARGUMENT},
      {"no such layer",
       [](Stub& s) { return ReadExpert(s, [](auto& r) { r.mutable_expert()->set_layer(-1); }); },
       StatusCode::NOT_FOUND},
      {"no such expert",
       [](Stub& s) { return ReadExpert(s, [](auto& r) { r.mutable_expert()->set_expert(99); }); },
       StatusCode::NOT_FOUND},
      {"negative offset",
       [](Stub& s) { return ReadExpert(s, [](auto& r) { r.set_offset_bytes(-1); }); },
       StatusCode::INVALID_ARGUMENT},
      {"offset past the end",
       [&](Stub& s) { return ReadExpert(s, [&](auto& r) { r.set_offset_bytes(bytes + 1); }); },
       StatusCode::OUT_OF_RANGE},
      {"another epoch", [](Stub& s) { return ReadExpert(s, [](auto& r) { r.set_epoch(7); }); },
       StatusCode::ABORTED},
      {"another digest",
       [](Stub& s) { return ReadExpert(s, [](auto& r) { r.set_model_digest("x"); }); },
       StatusCode::FAILED_PRECONDITION},
  });
  EXPECT_TRUE(ReadExpert(*stub_, [&](auto& r) { r.set_offset_bytes(bytes); }).ok());
}

TEST_F(BadInputTest, ExecuteRefusesWhatDoesNotFit) {
  OpenTheModel();
  const auto row = [](const char* name, StatusCode code,
                      std::function<void(v1::ExecuteRequest&)> change) {
    return Case{name, [change](Stub& s) { return Execute(s, change); }, code};
  };
  ExpectEach({
      row("other model", StatusCode::NOT_FOUND, [](auto& r) { r.set_model("x"); }),
      row("long model", StatusCode::INVALID_ARGUMENT,
          [](auto& r) { r.set_model(std::string(500, 'x')); }),
      row("another epoch", StatusCode::ABORTED, [](auto& r) { r.set_epoch(7); }),
      row("another kernel", StatusCode::FAILED_PRECONDITION,
          [](auto& r) { r.set_kernel_target("ABACUS"); }),
      row("another digest", StatusCode::FAILED_PRECONDITION,
          [](auto& r) { r.set_model_digest("x"); }),
      row("no such layer", StatusCode::NOT_FOUND, [](auto& r) { r.set_layer(-1); }),
      row("no tokens", StatusCode::INVALID_ARGUMENT, [](auto& r) { r.set_token_count(0); }),
      row("negative tokens", StatusCode::INVALID_ARGUMENT,
          [](auto& r) { r.set_token_count(INT32_MIN); }),
      row("too many tokens", StatusCode::INVALID_ARGUMENT,
          [](auto& r) { r.set_token_count(INT32_MAX); }),
      row("no floats", StatusCode::INVALID_ARGUMENT, [](auto& r) { r.set_hidden("123"); }),
      row("no hidden state", StatusCode::INVALID_ARGUMENT, [](auto& r) { r.clear_hidden(); }),
      row("too few floats", StatusCode::INVALID_ARGUMENT, [](auto& r) { r.set_token_count(2); }),
      row("no experts", StatusCode::INVALID_ARGUMENT, [](auto& r) { r.clear_experts(); }),
      row("no such expert", StatusCode::NOT_FOUND,
          [](auto& r) { r.mutable_experts(0)->set_expert(99); }),
      row("negative expert", StatusCode::NOT_FOUND,
          [](auto& r) { r.mutable_experts(0)->set_expert(-1); }),
      row("an expert twice", StatusCode::INVALID_ARGUMENT,
          [](auto& r) { *r.add_experts() = r.experts(0); }),
      row("expert without tokens", StatusCode::INVALID_ARGUMENT,
          [](auto& r) { r.mutable_experts(0)->clear_tokens(); }),
      row("token past the end", StatusCode::INVALID_ARGUMENT,
          [](auto& r) { r.mutable_experts(0)->set_tokens(0, 1); }),
      row("negative token", StatusCode::INVALID_ARGUMENT,
          [](auto& r) { r.mutable_experts(0)->set_tokens(0, -1); }),
      row("a token twice", StatusCode::INVALID_ARGUMENT,
          [](auto& r) { r.mutable_experts(0)->add_tokens(0); }),
  });
  EXPECT_TRUE(Execute(*stub_, [](auto&) {}).ok());
  // More than a message may have.
  EXPECT_EQ(Execute(*stub_, [](auto& r) { r.set_hidden(std::string(32 << 20, 'x')); }).error_code(),
            StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(BadInputTest, WithoutComputeThreadsExecuteIsUnimplemented) {
  ExpertStorageTestServer server;
  const auto own = v1::ExpertStorageService::NewStub(MakeChannel(server.endpoint).value());
  EXPECT_EQ(Execute(*own, [](auto&) {}).error_code(), StatusCode::UNIMPLEMENTED);
}

TEST_F(BadInputTest, ReadExpertStartsAnywhere) {
  OpenTheModel();
  const auto expected = truth_->Bytes({1, 2});
  for (const uint64_t offset : {uint64_t{0}, uint64_t{1}, expected.size() - 1}) {
    v1::ReadExpertRequest request;
    request.mutable_expert()->set_layer(1);
    request.mutable_expert()->set_expert(2);
    request.set_offset_bytes(static_cast<int64_t>(offset));
    grpc::ClientContext context;
    Arm(context);
    const auto reader = stub_->ReadExpert(&context, request);
    v1::ReadExpertResponse response;
    ASSERT_TRUE(reader->Read(&response));
    EXPECT_EQ(response.header().size_bytes(), static_cast<int64_t>(expected.size()));
    EXPECT_EQ(response.header().xxh3(), truth_->catalog().FindLayer(1)->xxh3[2]);
    std::string got;
    while (reader->Read(&response)) got += response.chunk();
    EXPECT_TRUE(reader->Finish().ok());
    EXPECT_EQ(got, std::string(reinterpret_cast<const char*>(expected.data()) + offset,
                               expected.size() - offset));
  }
}

TEST_F(BadInputTest, ReadExpertOfACorruptExpertIsDataLoss) {
  CorruptExpert(directory_ / "root/model", {0, 1});
  OpenTheModel();
  ExpectEach(
      {{"corrupt",
        [](Stub& s) { return ReadExpert(s, [](auto& r) { r.mutable_expert()->set_expert(1); }); },
        StatusCode::DATA_LOSS}});
  EXPECT_TRUE(ReadExpert(*stub_, [](auto& r) { r.mutable_expert()->set_expert(2); }).ok());
}

TEST_F(BadInputTest, AWholeLifeOfAModel) {
  OpenTheModel();
  const auto admin = ExpertStorageAdmin::Connect(server_.endpoint).value();
  const auto models = admin->ListModels().value();
  ASSERT_EQ(models.size(), 1u);
  EXPECT_EQ(models[0].name, "model");
  EXPECT_EQ(models[0].expert_count, 8u);
  const auto described = admin->DescribeModel("model").value();
  EXPECT_EQ(described.catalog.model_digest(), truth_->catalog().model_digest());
  EXPECT_EQ(described.catalog.total_bytes(), truth_->catalog().total_bytes());
  const auto stats = admin->Stats("").value();
  EXPECT_EQ(stats.epoch, models[0].epoch);
  EXPECT_EQ(stats.store.slot_count, 8u);
  EXPECT_GT(stats.peak_rss_bytes, 0u);
  EXPECT_TRUE(admin->CloseModel("model").ok());
  EXPECT_TRUE(admin->ListModels()->empty());
}

}  // namespace
}  // namespace odmoe
