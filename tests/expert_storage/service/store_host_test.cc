#include "services/expert_storage/service/store_host.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/support/expert_directory.h"
#include "tests/support/temporary_directory.h"

namespace odmoe {
namespace {

class StoreHostTest : public ::testing::Test {
 protected:
  StoreHostTest() {
    for (const char* model : {"root/one", "root/two", "outside/three"}) {
      WriteRandomExperts(directory_ / model, {});
    }
  }

  absl::StatusOr<std::shared_ptr<HostedModel>> OpenForClient(const std::string& path) {
    return host_.OpenForClient(path, half_, SourceKind::kMapped);
  }

  const Budget half_ = ParseBudget("50%").value();
  TemporaryDirectory directory_;
  StoreHost host_{{{directory_ / "root"}, true}};
};

TEST_F(StoreHostTest, OpensBelowARootOnly) {
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

TEST_F(StoreHostTest, ALinkOutOfARootLeadsNowhere) {
  std::filesystem::create_directory_symlink(directory_ / "outside/three",
                                            directory_ / "root/link");
  std::filesystem::create_directory_symlink(directory_ / "outside", directory_ / "root/up");
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "root/link").status()));
  EXPECT_TRUE(absl::IsPermissionDenied(OpenForClient(directory_ / "root/up/three").status()));
}

TEST_F(StoreHostTest, ARootThatIsALinkIsWhereItPoints) {
  std::filesystem::create_directory_symlink(directory_ / "root", directory_ / "alias");
  StoreHost host({{directory_ / "alias"}, true});
  EXPECT_TRUE(host.OpenForClient(directory_ / "root/one", half_, SourceKind::kMapped).ok());
}

TEST_F(StoreHostTest, WithoutRootsClientsOpenNothing) {
  StoreHost host({{}, true});
  EXPECT_TRUE(absl::IsPermissionDenied(
      host.OpenForClient(directory_ / "root/one", half_, SourceKind::kMapped).status()));
  EXPECT_TRUE(host.Open(directory_ / "root/one", half_, SourceKind::kMapped).ok());
}

TEST_F(StoreHostTest, OpeningTheSameAgainChangesNothing) {
  const auto first = OpenForClient(directory_ / "root/one").value();
  EXPECT_EQ(OpenForClient(directory_ / "root/one/").value(), first);
  EXPECT_EQ(OpenForClient(directory_ / "root/./one").value(), first);
}

TEST_F(StoreHostTest, ASecondModelOrBudgetIsRefusedUntilTheFirstIsClosed) {
  ASSERT_TRUE(OpenForClient(directory_ / "root/one").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(OpenForClient(directory_ / "root/two").status()));
  EXPECT_TRUE(absl::IsFailedPrecondition(
      host_.OpenForClient(directory_ / "root/one", Budget{}, SourceKind::kMapped).status()));
  EXPECT_TRUE(absl::IsNotFound(host_.Close("two")));
  EXPECT_TRUE(host_.Close("").ok());
  EXPECT_TRUE(OpenForClient(directory_ / "root/two").ok());
}

TEST_F(StoreHostTest, AModelInUseIsNotClosed) {
  ASSERT_TRUE(OpenForClient(directory_ / "root/one").ok());
  const auto attached = host_.Attach("one", "test").value();
  EXPECT_TRUE(absl::IsFailedPrecondition(host_.Close("one")));
  attached.model->store->EndSession(attached.client);
  EXPECT_TRUE(host_.Close("one").ok());
  EXPECT_TRUE(absl::IsNotFound(host_.Find("").status()));
  EXPECT_TRUE(absl::IsNotFound(host_.Attach("one", "test").status()));
}

TEST_F(StoreHostTest, AFailedOpeningLeavesRoomForAnother) {
  CorruptExpert(directory_ / "root/one", {0, 0});
  std::filesystem::remove(directory_ / "root/one/experts/registry.json");
  EXPECT_TRUE(absl::IsNotFound(OpenForClient(directory_ / "root/one").status()));
  EXPECT_TRUE(host_.List().empty());
  EXPECT_TRUE(OpenForClient(directory_ / "root/two").ok());
  EXPECT_EQ(host_.List().size(), 1u);
}

}  // namespace
}  // namespace odmoe
