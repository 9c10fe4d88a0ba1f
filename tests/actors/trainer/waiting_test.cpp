#include "tests/actors/trainer/node_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// Shards that are on their way, until `here` is set.
class late_shards final : public text::shard_source {
public:
  explicit late_shards(text::shard_set of) : of_(std::move(of)) {}
  const std::string& name() const noexcept override { return of_.name(); }
  std::span<const uint64_t> training_ids() const noexcept override { return of_.training_ids(); }
  uint64_t training_size(size_t place) const noexcept override { return of_.training_size(place); }
  uint64_t shard_bytes_max() const noexcept override { return of_.shard_bytes_max(); }
  kernels::result<text::shard_lease> lease(size_t place) const override {
    if (!here)
      return kernels::status{kernels::code::unavailable, "the shard is on its way"};
    return of_.lease(place);
  }
  text::shard_presence presence(size_t) const override {
    return here ? text::shard_presence::here : text::shard_presence::coming;
  }
  text::token_view held_out() const override { return here ? of_.held_out() : text::token_view{}; }
  bool here = false;

private:
  text::shard_set of_;
};

struct late_fixture : node_fixture {
  std::shared_ptr<late_shards> shards;

  late_fixture() {
    auto set = text::shard_set::open(root.path() + "/shards", {});
    REQUIRE(set.ok());
    shards = std::make_shared<late_shards>(std::move(*set));
    auto loader = text::data_loader::make(shards, {options.node_id, 1'000'000});
    REQUIRE(loader.ok());
    data = std::make_shared<const text::data_loader>(std::move(*loader));
    spawn();
    start();
    sched.run();
  }
  actor_status status() { return *ask<actor_status>(*this, loop, status_atom_v).value; }
};

} // namespace

TEST_CASE("training waits for a shard that is on its way, says so, and begins when it is there") {
  late_fixture node;
  CHECK(node.progress()->inner_step == 0);
  CHECK(!node.progress()->running);
  CHECK(node.progress()->enabled);
  CHECK(node.progress()->error == "the shard is on its way");
  CHECK(node.status().state == actor_status::health::degraded);
  node.shards->here = true;
  node.pause_at = 3;
  caf::anon_send(node.loop, next_atom_v); // as its tick does
  node.sched.run();
  const auto now = node.progress();
  CHECK(now->inner_step == 3);
  CHECK(now->error.empty());
  CHECK(node.status().state == actor_status::health::ok);
  CHECK(now->untrained_loss.has_value()); // measured before the first step, though it came late
}

TEST_CASE("a node that waits for a shard can be paused and stopped") {
  late_fixture node;
  SUBCASE("paused first") {
    caf::anon_send(node.loop, set_training{false});
    node.sched.run();
    CHECK(node.progress()->error.empty());
  }
  CHECK(ask<caf::unit_t>(node, node.loop, stop_training{}));
}
