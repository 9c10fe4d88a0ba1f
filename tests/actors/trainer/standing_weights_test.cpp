#include "actors/trainer/resync_watch.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;
using place = standing_weights::place;

namespace {

constexpr int64_t second = 1'000'000;

kernels::digest hash(const std::string& what) {
  return kernels::sha256::of(what);
}

/// A node that holds units at an outer step, all of the same line of weights.
peer_info holder(char id, uint64_t version, const std::string& line,
                 const std::vector<std::string>& units = {"embed", "layer.0", "head"}) {
  peer_info made;
  made.state = peer_state::online;
  made.node.node_id = std::string(32, id);
  made.node.host = std::string("10.0.0.") + id;
  made.node.grpc_port = 9'000;
  made.node.architecture_id = "small";
  made.node.model_version = version;
  for (const auto& unit : units)
    made.node.units.push_back({unit, hash(unit + line + std::to_string(version)), std::nullopt});
  return made;
}
own_weights own(char id, uint64_t version, const std::string& line,
                const std::vector<std::string>& units = {"embed", "layer.0", "head"}) {
  return {std::string(32, id), "small", version, units, holder(id, version, line, units).node.units, false};
}
std::string first_candidate(const standing_weights& found, size_t part = 0) {
  return found.parts.at(part).candidates.at(0).node_id.substr(0, 1);
}

} // namespace

TEST_CASE("a node whose units nobody else has trained is alone") {
  CHECK(find_standing(own('a', 3, "x"), {}).where == place::alone);
  CHECK(find_standing(own('a', 0, "x"), {holder('b', 0, "x"), holder('c', 0, "x")}).where == place::alone);
  CHECK(find_standing(own('a', 3, "x"), {holder('b', 0, "x"), holder('c', 0, "x")}).where == place::alone);
  CHECK(find_standing(own('a', 3, "x", {"layer.0"}), {holder('b', 7, "x", {"layer.1"})}).where ==
        place::alone);
  SUBCASE("who cannot be reached, or has another architecture, does not count") {
    auto gone = holder('b', 5, "x");
    gone.state = peer_state::stale;
    auto other = holder('c', 5, "x");
    other.node.architecture_id = "large";
    CHECK(find_standing(own('a', 3, "x"), {gone, other}).where == place::alone);
  }
  SUBCASE("nor does what says nothing of its weights") {
    auto loading = holder('b', 5, "x");
    loading.node.units.clear();
    CHECK(find_standing(own('a', 3, "x"), {loading}).where == place::alone);
  }
}

TEST_CASE("who has trained the same units and has not said yet what they are leaves it open") {
  auto begins = holder('b', 5, "x");
  begins.node.units.clear();
  begins.node.layer_end = 1;
  CHECK(find_standing(own('a', 3, "x"), {begins}).where == place::unsettled);
  CHECK(find_standing(own('a', 3, "x", {"layer.1"}), {begins}).where == place::alone);
  begins.node.layer_end = 0;
  begins.node.has_lm_head = true;
  CHECK(find_standing(own('a', 3, "x", {"head"}), {begins}).where == place::unsettled);
  CHECK(find_standing(own('a', 3, "x", {"embed"}), {begins}).where == place::alone);
  SUBCASE("so a try that failed is not forgotten, but it is not waited for ever") {
    resync_watch watch;
    watch.look(own('a', 0, "x", {"head"}), {holder('b', 4, "x", {"head"})}, 0);
    REQUIRE(watch.take(0));
    CHECK(watch.failed({std::string(32, 'b')}, 0));
    watch.look(own('a', 0, "x", {"head"}), {begins}, second);
    CHECK(watch.syncing());
    CHECK_FALSE(watch.take(second));
    watch.look(own('a', 0, "x", {"head"}), {begins}, 61 * second);
    CHECK_FALSE(watch.syncing());
  }
}

TEST_CASE("a new node takes what those who have trained hold") {
  const auto found =
      find_standing(own('c', 0, "x"), {holder('a', 4, "x"), holder('b', 4, "x"), holder('d', 0, "x"),
                                       holder('e', 0, "x"), holder('f', 0, "x")});
  REQUIRE(found.where == place::apart);
  CHECK(found.version == 4);
  REQUIRE(found.parts.size() == 1);
  CHECK(found.parts[0].candidates.size() == 2);
  CHECK(found.parts[0].candidates[0].address == "10.0.0.a:9000");
  REQUIRE(found.parts[0].units.size() == 3);
  for (const auto& unit : found.parts[0].units)
    CHECK(unit.unit_hash == hash(unit.unit + "x4"));
}

TEST_CASE("the largest group stands") {
  SUBCASE("a minority at a higher outer step makes nobody drop his weights") {
    const peer_list others{holder('b', 4, "x"), holder('z', 900, "lie")};
    CHECK(find_standing(own('a', 4, "x"), others).where == place::in_step);
  }
  SUBCASE("nor does a minority with other weights, or one that is slow") {
    CHECK(find_standing(own('b', 4, "x"), {holder('c', 4, "x"), holder('a', 4, "lie")}).where ==
          place::in_step);
    CHECK(find_standing(own('b', 4, "x"), {holder('c', 4, "x"), holder('a', 3, "x")}).where ==
          place::in_step);
  }
  SUBCASE("who is in the minority takes it, whether behind, ahead or beside") {
    for (const uint64_t version : {3, 5, 4}) {
      const auto found =
          find_standing(own('a', version, "other"), {holder('b', 4, "x"), holder('c', 4, "x")});
      REQUIRE(found.where == place::apart);
      CHECK(found.version == 4);
      CHECK(first_candidate(found) == "b");
    }
  }
  SUBCASE("two in step with each other stand against three that agree in nothing") {
    CHECK(find_standing(own('e', 4, "x"),
                        {holder('f', 4, "x"), holder('a', 4, "1"), holder('b', 4, "2"), holder('c', 4, "3")})
              .where == place::in_step);
  }
}

TEST_CASE("a tie goes to the higher outer step, then to the group with the lowest node id") {
  CHECK(find_standing(own('a', 4, "x"), {holder('b', 5, "x")}).version == 5);
  CHECK(find_standing(own('b', 5, "x"), {holder('a', 4, "x")}).where == place::in_step);
  CHECK(find_standing(own('a', 5, "x"), {holder('b', 5, "y")}).where == place::in_step);
  const auto found = find_standing(own('b', 5, "y"), {holder('a', 5, "x")});
  CHECK(found.where == place::apart);
  CHECK(first_candidate(found) == "a");
}

TEST_CASE("the same weights with another velocity are another group") {
  auto with = holder('a', 4, "x");
  for (auto& unit : with.node.units)
    unit.velocity_hash = hash("v");
  auto second_with = with;
  second_with.node.node_id = std::string(32, 'b');
  const auto found = find_standing(own('c', 4, "x"), {with, second_with});
  REQUIRE(found.where == place::apart);
  CHECK(found.parts[0].units[0].velocity_hash == hash("v"));
}

TEST_CASE("a node that does not know its own hashes yet is not apart for that") {
  auto mine = own('c', 4, "x");
  mine.known.clear();
  CHECK(find_standing(mine, {holder('a', 4, "x"), holder('b', 4, "x")}).where == place::in_step);
  SUBCASE("but one whose base is lost is") {
    mine.base_lost = true;
    CHECK(find_standing(mine, {holder('a', 4, "x")}).where == place::apart);
  }
  SUBCASE("and so is one that is behind") {
    mine.version = 3;
    CHECK(find_standing(mine, {holder('a', 4, "x")}).where == place::apart);
  }
}

TEST_CASE("units come from as few nodes as have them all, and what nobody else holds is kept") {
  const peer_list others{holder('a', 4, "x", {"embed", "layer.0"}), holder('b', 4, "x", {"layer.0"}),
                         holder('d', 4, "x", {"layer.1"})};
  const auto found = find_standing(own('c', 0, "x", {"embed", "layer.0", "layer.1", "head"}), others);
  REQUIRE(found.where == place::apart);
  REQUIRE(found.parts.size() == 2);
  CHECK(found.parts[0].units.size() == 2);
  CHECK(first_candidate(found, 0) == "a");
  CHECK(found.parts[1].units.size() == 1);
  CHECK(first_candidate(found, 1) == "d");
  SUBCASE("those who could not give them are asked last") {
    auto all = others;
    all.push_back(holder('e', 4, "x", {"embed", "layer.0"}));
    const auto again = find_standing(own('c', 0, "x", {"embed", "layer.0"}), all, {std::string(32, 'a')});
    REQUIRE(again.parts.size() == 1);
    CHECK(first_candidate(again) == "e");
    CHECK(again.parts[0].candidates.size() == 2);
  }
}

TEST_CASE("while what stands is of different outer steps, or nobody tells his address, nothing is taken") {
  const peer_list others{holder('a', 5, "x", {"embed"}), holder('b', 4, "x", {"layer.0"})};
  CHECK(find_standing(own('c', 0, "x", {"embed", "layer.0"}), others).where == place::unsettled);
  auto hidden = holder('a', 5, "x");
  hidden.node.host.clear();
  CHECK(find_standing(own('c', 0, "x"), {hidden}).where == place::unsettled);
}

TEST_CASE("a node that was never in step takes weights at once") {
  resync_watch watch;
  watch.look(own('c', 0, "x"), {}, 0);
  CHECK_FALSE(watch.syncing());
  watch.look(own('c', 0, "x"), {holder('a', 4, "x")}, second);
  CHECK(watch.syncing());
  REQUIRE(watch.take(second));
  CHECK(watch.take(second)->version == 4);
  watch.taken();
  CHECK_FALSE(watch.syncing());
}

TEST_CASE("one that was in step waits for late records, unless it is two outer steps behind") {
  resync_watch watch;
  watch.look(own('c', 4, "x"), {holder('a', 4, "x")}, 0);
  const peer_list gone_on{holder('a', 5, "x"), holder('b', 5, "x")};
  watch.look(own('c', 4, "x"), gone_on, second);
  CHECK_FALSE(watch.syncing());
  SUBCASE("it comes to the same outer step meanwhile") {
    watch.look(own('c', 5, "x"), gone_on, 10 * second);
    watch.look(own('c', 5, "x"), {holder('a', 6, "x"), holder('b', 6, "x")}, 17 * second);
    CHECK_FALSE(watch.syncing());
  }
  SUBCASE("it does not") {
    watch.look(own('c', 4, "x"), gone_on, 16 * second);
    CHECK(watch.take(16 * second));
  }
  SUBCASE("two outer steps cannot be late records") {
    watch.look(own('c', 4, "x"), {holder('a', 6, "x"), holder('b', 6, "x")}, 2 * second);
    CHECK(watch.take(2 * second));
  }
}

TEST_CASE(
    "told by the outer loop it waits for what stands to become clear, but never alone, and not for ever") {
  resync_watch watch;
  watch.must();
  watch.look(own('c', 4, "x"), {holder('a', 4, "x")}, second);
  CHECK(watch.syncing());
  CHECK_FALSE(watch.take(second));
  SUBCASE("the others' records come") {
    watch.look(own('c', 4, "x"), {holder('a', 5, "x")}, 2 * second);
    CHECK(watch.take(2 * second));
  }
  SUBCASE("the others leave") {
    watch.look(own('c', 4, "x"), {}, 2 * second);
    CHECK_FALSE(watch.syncing());
  }
  SUBCASE("nothing changes") {
    watch.look(own('c', 4, "x"), {holder('a', 4, "x")}, 61 * second);
    CHECK_FALSE(watch.syncing());
  }
}

TEST_CASE("what cannot be had is tried again with growing pauses, then given up for minutes") {
  resync_watch watch;
  const peer_list others{holder('z', 9, "lie")};
  int64_t now = 0;
  std::vector<int64_t> tried;
  for (int i = 0; i < 400; ++i, now += second / 2) {
    watch.look(own('a', 4, "x"), others, now);
    if (!watch.take(now))
      continue;
    tried.push_back(now);
    if (!watch.failed({std::string(32, 'z')}, now))
      break;
  }
  CHECK(tried == std::vector<int64_t>{0, second, 3 * second, 7 * second, 15 * second, 31 * second});
  CHECK_FALSE(watch.syncing());
  watch.look(own('a', 4, "x"), others, now + 200 * second);
  CHECK_FALSE(watch.syncing());
  watch.look(own('a', 4, "x"), others, now + 301 * second);
  CHECK(watch.syncing());
}
