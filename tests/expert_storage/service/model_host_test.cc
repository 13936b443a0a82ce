#include "services/expert_storage/service/model_host.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

class ModelHostTest : public ::testing::Test {
 protected:
  ModelHostTest() {
    for (const char* model : {"root/one", "root/two", "outside/three"}) {
      WriteRandomExperts(directory_ / model, {});
    }
  }

  absl::StatusOr<std::shared_ptr<HostedModel>> OpenForClient(const std::string& path) {
    return host_.OpenForClient(path, half_, SourceKind::kMapped);
  }

  const Budget half_ = ParseBudget("50%").value();
  TemporaryDirectory directory_;
  ModelHost host_{{{directory_ / "root"}, true}};
};

TEST_F(ModelHostTest, OpensBelowARootOnly) {
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "outside/three").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(
      OpenForClient(directory_ / "root/../outside/three").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "root/../roots").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient("/").status()));
  EXPECT_TRUE(absl::IsInvalidArgument(OpenForClient("root/one").status()));
  EXPECT_TRUE(absl::IsNotFound(OpenForClient(directory_ / "root/none").status()));
  const auto model = OpenForClient(directory_ / "root/one");
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ((*model)->name, "one");
}

TEST_F(ModelHostTest, ALinkOutOfARootLeadsNowhere) {
  std::filesystem::create_directory_symlink(directory_ / "outside/three",
                                            directory_ / "root/link");
  std::filesystem::create_directory_symlink(directory_ / "outside", directory_ / "root/up");
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "root/link").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "root/up/three").status()));
}

TEST_F(ModelHostTest, ARootThatIsALinkIsWhereItPoints) {
  std::filesystem::create_directory_symlink(directory_ / "root", directory_ / "alias");
  ModelHost host({{directory_ / "alias"}, true});
  EXPECT_TRUE(host.OpenForClient(directory_ / "root/one", half_, SourceKind::kMapped).ok());
}

TEST_F(ModelHostTest, WithoutRootsClientsOpenNothing) {
  ModelHost host({{}, true});
  EXPECT_TRUE(absl::IsPermissionDenied(
      host.OpenForClient(directory_ / "root/one", half_, SourceKind::kMapped).status()));
  EXPECT_TRUE(host.Open(directory_ / "root/one", half_, SourceKind::kMapped).ok());
}

TEST_F(ModelHostTest, OpeningTheSameAgainChangesNothing) {
  const auto first = OpenForClient(directory_ / "root/one").value();
  EXPECT_EQ(OpenForClient(directory_ / "root/one/").value(), first);
  EXPECT_EQ(OpenForClient(directory_ / "root/./one").value(), first);
}

TEST_F(ModelHostTest, ASecondModelOrBudgetIsRefusedUntilTheFirstIsClosed) {
  ASSERT_TRUE(OpenForClient(directory_ / "root/one").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(OpenForClient(directory_ / "root/two").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      host_.OpenForClient(directory_ / "root/one", Budget{}, SourceKind::kMapped).status()));
  EXPECT_TRUE(absl::IsNotFound(host_.Close("two")));
  EXPECT_TRUE(host_.Close("").ok());
  EXPECT_TRUE(OpenForClient(directory_ / "root/two").ok());
}

TEST_F(ModelHostTest, AModelInUseIsNotClosed) {
  ASSERT_TRUE(OpenForClient(directory_ / "root/one").ok());
  const auto attached = host_.Attach("one", "test").value();
  EXPECT_TRUE(absl::IsFailedPrecondition(host_.Close("one")));
  attached.model->store->EndSession(attached.client);
  EXPECT_TRUE(host_.Close("one").ok());
  EXPECT_TRUE(absl::IsNotFound(host_.Find("").status()));
  EXPECT_TRUE(absl::IsNotFound(host_.Attach("one", "test").status()));
}

TEST_F(ModelHostTest, AFailedOpeningLeavesRoomForAnother) {
  CorruptExpert(directory_ / "root/one", {0, 0});
  std::filesystem::remove(directory_ / "root/one/experts/registry.json");
  EXPECT_TRUE(absl::IsNotFound(OpenForClient(directory_ / "root/one").status()));
  EXPECT_TRUE(host_.List().empty());
  EXPECT_TRUE(OpenForClient(directory_ / "root/two").ok());
  EXPECT_EQ(host_.List().size(), 1u);
}

}  // namespace
}  // namespace odmoe
