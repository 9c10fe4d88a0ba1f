#include "tests/actors/peer_manager/peer_fixture.hpp"
#include "tests/support/ask.hpp"

#include <caf/send.hpp>

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

/// Remembers what the peer manager wants of it.
struct recording_directory final : peer_directory {
  std::vector<std::string> ways;
  std::vector<std::string> records;
  std::vector<uint32_t> layers;
  int looks = 0;
  void enter_through(const std::string& host, uint16_t port) override {
    ways.push_back(host + ":" + std::to_string(port));
  }
  void publish(const std::string& record, std::vector<uint32_t> held) override {
    records.push_back(record);
    layers = std::move(held);
  }
  void look() override { ++looks; }
};

struct rediscovery_fixture : peer_fixture {
  std::shared_ptr<recording_directory> directory = std::make_shared<recording_directory>();

  void remember(unsigned number) {
    adjust = [this, number](peer_manager_parts&, peer_manager_options& options) {
      options.stored.push_back({identity_of(number)->node_id(), address(number), clock->unix_us()});
    };
  }
  void use_directory() {
    adjust = [this](peer_manager_parts& parts, peer_manager_options&) { parts.directory = directory; };
  }
  std::string record_of(unsigned number, uint64_t more_sequence = 0) {
    const auto who = identity_of(number);
    auto node = description_of(*who, "10.0.0." + std::to_string(number));
    node.sequence += more_sequence;
    return encode_signed_blob(sign_node(*who, node)->blob);
  }
  void find(const member& by, std::string record) {
    caf::anon_send(by.manager, found_record{std::move(record)});
    sched.run();
  }
};

} // namespace

TEST_CASE_FIXTURE(rediscovery_fixture, "a node whose seed is dead finds a peer of its earlier life") {
  const auto a = join(1, {});
  remember(1);
  const auto b = join(2, {"10.0.0.99:9000"});
  run_s(3);
  CHECK(state(b, 1) == peer_state::online);
  CHECK(state(a, 2) == peer_state::online);
}

TEST_CASE_FIXTURE(rediscovery_fixture, "stored peers are left alone by a node that has enough others") {
  join(1, {});
  join(3, {});
  adjust = [this](peer_manager_parts&, peer_manager_options& options) {
    options.stored.push_back({identity_of(3)->node_id(), address(3), clock->unix_us()});
    options.peers_min = 1;
  };
  const auto b = join(2, {address(1)});
  run_s(10);
  CHECK(state(b, 1) == peer_state::online);
  CHECK_FALSE(state(b, 3).has_value());
}

TEST_CASE_FIXTURE(rediscovery_fixture, "a stored address where somebody else lives now costs nothing") {
  const auto a = join(1, {});
  adjust = [this](peer_manager_parts&, peer_manager_options& options) {
    options.stored.push_back({identity_of(7)->node_id(), address(1), clock->unix_us()});
    options.stored.push_back({identity_of(2)->node_id(), address(2), clock->unix_us()}); // itself
    options.stored.push_back({identity_of(8)->node_id(), address(8), clock->unix_us()}); // nobody
  };
  const auto b = join(2, {});
  run_s(20);
  CHECK(state(b, 1) == peer_state::online);
  CHECK(peers(b).size() == 1);
  CHECK(peers(a).size() == 1);
}

TEST_CASE_FIXTURE(rediscovery_fixture,
                  "two halves of a network that were apart for long find each other again") {
  const auto a = join(1, {});
  const auto b = join(2, {address(1)});
  const auto c = join(3, {address(2)});
  run_s(12);
  REQUIRE(state(a, 3) == peer_state::online);
  network->down.insert(address(3));
  run_s(90);
  REQUIRE_FALSE(state(a, 3).has_value());
  REQUIRE(peers(c).empty());
  network->down.clear();
  run_s(70);
  CHECK(state(a, 3) == peer_state::online);
  CHECK(state(b, 3) == peer_state::online);
  CHECK(state(c, 1) == peer_state::online);
}

TEST_CASE_FIXTURE(rediscovery_fixture,
                  "the directory is entered through seeds and peers, and left a record") {
  join(1, {});
  use_directory();
  const auto b = join(2, {address(1), "example.org:65000"});
  run_s(10);
  REQUIRE(state(b, 1) == peer_state::online);
  CHECK(std::count(directory->ways.begin(), directory->ways.end(), "10.0.0.1:10000") >= 1);
  CHECK(directory->ways.size() <= 2); // not example.org: there is no port beyond 65535
  REQUIRE(directory->records.size() == 1);
  CHECK(directory->records[0] == record_of(2));
  CHECK(directory->layers == std::vector<uint32_t>{0, 1, 2, 3, 4, 5});
  CHECK(directory->looks >= 1);
  auto changed = description_of(*b.who, "10.0.0.2");
  changed.layer_end = 2;
  CHECK(ask<caf::unit_t>(*this, b.manager, changed));
  run_s(6);
  CHECK(directory->records.size() == 2);
  CHECK(directory->layers == std::vector<uint32_t>{0, 1});
}

TEST_CASE_FIXTURE(rediscovery_fixture, "a record without an address is not left in the directory") {
  use_directory();
  const auto a = join(1, {}, false);
  run_s(3);
  CHECK(directory->records.empty());
  caf::anon_send(a.manager, seen_in_directory{"10.0.0.1"});
  run_s(2);
  REQUIRE(directory->records.size() == 1);
  const auto blob = decode_signed_blob(directory->records[0]);
  REQUIRE(static_cast<bool>(blob));
  CHECK(read_node(*blob, clock->unix_us() / 1'000).value()->what.host == "10.0.0.1");
}

TEST_CASE_FIXTURE(rediscovery_fixture,
                  "two nodes that know each other from the directory alone meet at once") {
  use_directory();
  const auto a = join(1, {});
  const auto b = join(2, {});
  find(a, record_of(2));
  CHECK(state(a, 2) == peer_state::online);
  CHECK(state(b, 1) == peer_state::online);
}

TEST_CASE_FIXTURE(rediscovery_fixture, "what is found and proves nothing is dropped") {
  use_directory();
  const auto a = join(1, {});
  auto forged = record_of(2);
  forged[forged.size() - 3] ^= 1;
  for (const std::string& record : {std::string(), std::string("garbage"), std::string(70'000, 'x'), forged,
                                    record_of(1), record_of(1, 1'000'000)})
    find(a, record);
  CHECK(peers(a).empty());
  run_s(2);
  CHECK(peers(a).empty());
}

TEST_CASE_FIXTURE(rediscovery_fixture, "a record of a node that is gone is not tried for ever") {
  use_directory();
  const auto a = join(1, {});
  find(a, record_of(2)); // nobody is there
  CHECK(state(a, 2) == peer_state::fresh);
  run_s(70);
  CHECK_FALSE(state(a, 2).has_value());
  const auto calls = network->calls;
  find(a, record_of(2));
  run_s(5);
  CHECK_FALSE(state(a, 2).has_value());
  CHECK(network->calls == calls);
  find(a, record_of(2, 1)); // it is back, and says so
  CHECK(state(a, 2) == peer_state::fresh);
}

TEST_CASE_FIXTURE(rediscovery_fixture, "strangers from the directory do not fill the table") {
  use_directory();
  const auto a = join(1, {});
  for (unsigned i = 10; i < 210; ++i)
    find(a, record_of(i));
  CHECK(peers(a).size() == 128);
}

TEST_CASE_FIXTURE(rediscovery_fixture,
                  "a route goes over what this node holds now, not as of the last tick") {
  auto loaded = std::make_shared<bool>(false);
  adjust = [loaded](peer_manager_parts& parts, peer_manager_options& options) {
    options.own.layer_end = 0;
    options.own.has_embedding = options.own.has_lm_head = false;
    parts.refresh = [loaded](node_description& own, training_report&) {
      own.layer_end = *loaded ? 6 : 0;
      own.has_embedding = own.has_lm_head = *loaded;
    };
  };
  const auto a = join(1, {});
  run_s(2);
  CHECK(ask<model_route>(*this, a.manager, route_request{}).code() == errc::no_route);
  *loaded = true;
  const auto route = ask<model_route>(*this, a.manager, route_request{});
  REQUIRE(static_cast<bool>(route));
  REQUIRE(route->hops.size() == 1);
  CHECK(route->hops[0].local);
}
