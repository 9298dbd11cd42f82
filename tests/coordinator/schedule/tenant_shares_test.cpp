#include "coordinator/schedule/tenant_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace quire {
namespace {

using testing::ElementsAre;

TEST(TenantSharesTest, NobodySavesUpAClaimByBeingAway) {
  TenantShares shares({1.0, 1.0});
  shares.enter(0);
  shares.charge(0, 1000);
  shares.enter(1);
  EXPECT_THAT(shares.service(), ElementsAre(1000, 1000));
  shares.charge(1, 50);
  shares.leave(1);
  shares.charge(0, 500);
  shares.enter(1);
  EXPECT_THAT(shares.service(), ElementsAre(1500, 1500));
  shares.leave(0);
  shares.charge(1, 700);
  shares.leave(1);
  shares.enter(0);  // alone after a pause: where the last one left
  EXPECT_THAT(shares.service(), ElementsAre(2200, 2200));
}

TEST(TenantSharesTest, WhoHadMoreKeepsItWhenItComesBack) {
  TenantShares shares({1.0, 1.0});
  shares.enter(0);
  shares.enter(1);
  shares.charge(0, 900);
  shares.leave(0);
  shares.enter(0);
  EXPECT_THAT(shares.service(), ElementsAre(900, 0));
}

TEST(TenantSharesTest, TokensCountByWeight) {
  TenantShares shares({1.0, 4.0});
  shares.charge(0, 20);
  shares.charge(1, 20);
  EXPECT_THAT(shares.service(), ElementsAre(20, 5));
  EXPECT_EQ(shares.worth(1, 8), 2);
}

}  // namespace
}  // namespace quire
