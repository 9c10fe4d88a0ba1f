#include "actors/peer_manager/placement.hpp"
#include "tests/support/test.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <set>

using namespace neuroshard;

namespace {

constexpr int64_t second_of_us = 1'000'000;

/// A layer takes 60 MiB of use, so a node of 100 MB offers room for one; the ends take half a layer each.
unit_costs hundred() {
  return {60 << 20, 30 << 20, 30 << 20, 0.5};
}

placement_node room_for(std::string id, uint32_t layers, bool with_ends = true) {
  placement_node node;
  node.id = std::string(32 - id.size(), '0') + id;
  node.memory_mb = layers * 100ULL + (with_ends ? 100 : 0);
  return node;
}
std::string id(const std::string& of) {
  return std::string(32 - of.size(), '0') + of;
}

placement_input input_of(std::vector<placement_node> nodes, uint32_t layers = 6) {
  placement_input in;
  in.total_layers = layers;
  in.costs = hundred();
  in.nodes = std::move(nodes);
  in.now_us = 10'000 * second_of_us;
  return in;
}

layer_map map_from(const placement& made) {
  layer_map map;
  map.version = 1;
  map.layers = made.units;
  return map;
}

std::vector<size_t> replicas_in(const placement& made) {
  std::vector<size_t> count;
  for (size_t i = 1; i + 1 < made.units.size(); ++i)
    count.push_back(made.units[i].holders.size());
  return count;
}

uint64_t placement_seed() {
  const char* set = std::getenv("NEUROSHARD_TEST_SEED");
  return set ? std::strtoull(set, nullptr, 10) : std::random_device{}();
}

} // namespace

TEST_CASE("a node alone that has room holds the whole model with both ends") {
  const auto made = place(input_of({room_for("1", 6)}));
  CHECK(made.complete);
  CHECK(made.ranges.at(id("1")) == held_range{0, 6, true, true});
}

TEST_CASE("what a node runs already fits it, but for its own limit of layers") {
  auto node = room_for("1", 1);
  node.held = {0, 6, true, true};
  CHECK(place(input_of({node})).complete);
  node.max_layers = 4;
  CHECK(place(input_of({node})).ranges.at(id("1")).end <= 4);
}

TEST_CASE("two nodes with room for the model are two replicas; a sixth is given nothing") {
  std::vector<placement_node> nodes;
  for (int i = 1; i <= 7; ++i)
    nodes.push_back(room_for(std::to_string(i), 6));
  const auto two = place(input_of({nodes[0], nodes[1]}));
  CHECK(replicas_in(two) == std::vector<size_t>(6, 2));
  const auto seven = place(input_of(nodes));
  CHECK(replicas_in(seven) == std::vector<size_t>(6, 5));
  CHECK(seven.ranges.size() == 5);
}

TEST_CASE("stages that are laid together take about equal time") {
  auto fast = room_for("1", 5), slow = room_for("2", 5);
  fast.ms_per_layer = 1;
  slow.ms_per_layer = 1.9;
  const auto made = place(input_of({fast, slow}));
  CHECK(made.complete);
  CHECK(made.ranges.at(id("1")) == held_range{0, 4, true, false});
  CHECK(made.ranges.at(id("2")) == held_range{4, 6, false, true});
  // Without measurements all are alike.
  fast.ms_per_layer = slow.ms_per_layer = 0;
  CHECK(place(input_of({fast, slow})).ranges.at(id("1")).end == 3);
}

TEST_CASE("as long as there is no room for all layers each node extends the frontier") {
  auto in = input_of({room_for("1", 2)});
  auto made = place(in);
  CHECK_FALSE(made.complete);
  CHECK(made.ranges.at(id("1")) == held_range{0, 2, true, false});
  const auto before = map_from(made);
  in.previous = &before;
  in.nodes.push_back(room_for("2", 2, false));
  made = place(in);
  CHECK(made.ranges.at(id("1")) == held_range{0, 2, true, false});
  CHECK(made.ranges.at(id("2")) == held_range{2, 4, false, false});
  CHECK(made.units.back().holders.empty());
}

TEST_CASE("a new node takes the window with the fewest replicas, of equal ones the first") {
  auto in = input_of({room_for("1", 6)});
  const auto first = map_from(place(in));
  in.previous = &first;
  in.nodes.push_back(room_for("2", 3, false));
  const auto second = place(in);
  CHECK(second.ranges.at(id("2")).begin == 1); // the embedding has no room beside three layers
  const auto then = map_from(second);
  in.previous = &then;
  in.nodes.push_back(room_for("3", 2, false));
  CHECK(place(in).ranges.at(id("3")) == held_range{3, 5, false, false});
}

TEST_CASE("the head goes to validators that hold the last layer, to all holders when there is none") {
  auto a = room_for("1", 6), b = room_for("2", 6);
  auto made = place(input_of({a, b}));
  CHECK(made.units.back().holders == std::vector{id("1"), id("2")});
  b.validator = true;
  made = place(input_of({a, b}));
  CHECK(made.units.back().holders == std::vector{id("2")});
  CHECK(made.units.front().holders == std::vector{id("1"), id("2")});
}

TEST_CASE("a node that falls silent for a moment moves nothing, and gets nothing new") {
  auto in = input_of({room_for("1", 3), room_for("2", 3), room_for("3", 3)});
  const auto before = map_from(place(in));
  in.previous = &before;
  in.nodes[1].online = false;
  CHECK(place(in).units == before.layers);
  in.nodes.push_back(room_for("4", 6));
  in.nodes.back().online = false;
  CHECK(place(in).units == before.layers);
}

TEST_CASE("when a stage is gone its layers go to a new node first, else to the one with most room") {
  auto in = input_of({room_for("1", 3), room_for("2", 3)});
  in.trained = true;
  const auto before = map_from(place(in));
  REQUIRE(complete(before));
  in.previous = &before;
  in.nodes[1] = room_for("3", 3);
  auto made = place(in);
  CHECK(made.complete);
  CHECK(made.ranges.at(id("1")) == range_in(before, id("1")));
  CHECK(made.ranges.at(id("3")) == range_in(before, id("2")));
  in.nodes = {room_for("1", 6)}; // it has grown since
  made = place(in);
  CHECK(made.complete);
  CHECK(made.ranges.at(id("1")) == held_range{0, 6, true, true});
}

TEST_CASE("a node whose layers others hold closes a gap that nobody else can") {
  auto in = input_of({room_for("1", 3), room_for("2", 3), room_for("3", 3)});
  layer_map before;
  before.layers = {{"embed", {id("1"), id("2")}, {}},   {"layer.0", {id("1"), id("2")}, {}},
                   {"layer.1", {id("1"), id("2")}, {}}, {"layer.2", {id("1"), id("2")}, {}},
                   {"layer.3", {id("3")}, {}},          {"layer.4", {id("3")}, {}},
                   {"layer.5", {id("3")}, {}},          {"head", {id("3")}, {}}};
  in.previous = &before;
  in.nodes.pop_back();
  const auto made = place(in);
  CHECK(made.complete);
  CHECK(made.ranges.at(id("1")) == held_range{3, 6, false, true});
  CHECK(made.ranges.at(id("2")) == held_range{0, 3, true, false});
}

TEST_CASE("replicas far out of balance are moved, one node a minute, and rest for ten minutes") {
  std::vector<placement_node> nodes;
  layer_map before;
  before.layers.resize(8);
  before.layers[0].unit = "embed";
  before.layers[7].unit = "head";
  for (uint32_t i = 0; i < 6; ++i)
    before.layers[i + 1].unit = unit_of_layer(i);
  for (int n = 1; n <= 5; ++n) { // four hold the first half, one the second
    nodes.push_back(room_for(std::to_string(n), 3));
    const auto who = nodes.back().id;
    for (uint32_t layer = n < 5 ? 0 : 3; layer < (n < 5 ? 3U : 6U); ++layer)
      before.layers[layer + 1].holders.push_back(who);
    before.layers[n < 5 ? 0 : 7].holders.push_back(who);
  }
  auto in = input_of(nodes);
  in.previous = &before;
  in.exchanging = true;
  CHECK(place(in).units == before.layers);
  in.exchanging = false;
  in.moved_us[id("9")] = in.now_us - 59 * second_of_us; // somebody has just been moved
  CHECK(place(in).units == before.layers);
  in.moved_us.clear();
  const auto made = place(in);
  CHECK(replicas_in(made) == std::vector<size_t>{3, 3, 3, 2, 2, 2});
  for (const auto& node : nodes)
    in.moved_us[node.id] = in.now_us - 599 * second_of_us;
  CHECK(place(in).units == before.layers);
  in.moved_us[id("3")] = in.now_us - 600 * second_of_us;
  CHECK(place(in).ranges.at(id("3")) == held_range{3, 6, false, true});
}

TEST_CASE("costs of a cohort count training, two serving copies and the outer loop") {
  const auto costs = costs_in_cohort(983'552, 1'048'576, 1'048'576, true);
  CHECK(costs.layer_bytes == 983'552ULL * 376 / 10);
  CHECK(costs.head_layers == doctest::Approx(1.066).epsilon(0.001));
  CHECK(costs_in_cohort(10, 0, 0, false).layer_bytes == 392);
}

TEST_CASE("whoever joins, leaves or blinks, the map keeps its promises") {
  const auto seed = placement_seed();
  std::printf("placement_test: NEUROSHARD_TEST_SEED=%llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  const auto below = [&](uint64_t n) { return random() % n; };
  for (int run = 0; run < 150; ++run) {
    CAPTURE(seed);
    CAPTURE(run);
    const auto layers = static_cast<uint32_t>(2 + below(11));
    auto in = input_of({}, layers);
    layer_map previous;
    uint64_t next_id = 1;
    std::map<std::string, std::vector<int64_t>> moves;
    for (int step = 0; step < 60; ++step) {
      CAPTURE(step);
      in.now_us += static_cast<int64_t>(below(40)) * second_of_us;
      in.exchanging = below(5) == 0;
      in.trained = step > 5;
      for (uint64_t changes = below(3); changes > 0; --changes) {
        const auto what = below(6);
        if (what < 3 || in.nodes.empty()) {
          auto node = room_for(std::to_string(below(2) * 1'000'000 + next_id++),
                               static_cast<uint32_t>(below(layers + 3)), below(2) == 0);
          node.ms_per_layer = below(3) == 0 ? 0 : 1 + static_cast<double>(below(20));
          node.max_layers = below(4) == 0 ? static_cast<uint32_t>(1 + below(layers)) : 0;
          node.validator = below(2) == 0;
          node.takes_layers = below(10) != 0;
          in.nodes.push_back(node);
        } else if (what == 3) {
          in.nodes.erase(in.nodes.begin() + static_cast<ptrdiff_t>(below(in.nodes.size())));
        } else {
          auto& node = in.nodes[below(in.nodes.size())];
          node.online = !node.online;
        }
      }
      in.previous = previous.version == 0 ? nullptr : &previous;
      const auto made = place(in);
      // The same inputs in another order give the same map.
      auto shuffled = in;
      std::shuffle(shuffled.nodes.begin(), shuffled.nodes.end(), random);
      CHECK(place(shuffled).units == made.units);
      // Nobody is given more than it can hold, nor anything it must not take; no one is gone.
      for (const auto& [who, range] : made.ranges) {
        const auto node =
            std::find_if(in.nodes.begin(), in.nodes.end(), [&, &who = who](auto& n) { return n.id == who; });
        REQUIRE(node != in.nodes.end());
        CHECK(fits(*node, range.begin, range.end, layers, in.costs));
        if (node->max_layers != 0)
          CHECK(range.end - range.begin <= node->max_layers);
        CHECK(range.embed == (range.begin == 0));
        CHECK((!range.head || range.end == layers));
      }
      // The map can be signed, sent and read.
      auto map = map_from(made);
      map.version = static_cast<uint64_t>(step + 1);
      const auto read = decode_layer_map(encode_layer_map(map));
      REQUIRE(static_cast<bool>(read));
      CHECK(*read == map);
      // No gap where those that are there have room for all layers, whatever was before.
      std::vector<uint32_t> rooms;
      for (const auto& node : in.nodes)
        if (node.online && node.takes_layers)
          rooms.push_back(std::min(
              capacity_at(node, 0, layers - 1, in.costs),
              static_cast<uint32_t>(std::max<int64_t>(0, static_cast<int64_t>(node.memory_mb) - 100) / 100)));
      std::erase(rooms, 0U);
      std::sort(rooms.rbegin(), rooms.rend());
      uint32_t sum = 0;
      for (size_t i = 0; i < std::min<size_t>(rooms.size(), layers); ++i)
        sum += rooms[i];
      if (sum >= layers)
        CHECK(made.complete);
      // Nothing is moved but to close a gap, by the rules of rest, or because it no longer fits.
      bool gap = in.previous == nullptr;
      std::set<std::string> moved;
      if (in.previous) {
        auto kept = previous;
        for (auto& unit : kept.layers)
          std::erase_if(unit.holders, [&](const auto& who) {
            return std::none_of(in.nodes.begin(), in.nodes.end(), [&](auto& n) { return n.id == who; });
          });
        gap = std::any_of(kept.layers.begin() + 1, kept.layers.end() - 1,
                          [](auto& unit) { return unit.holders.empty(); });
        for (const auto& node : in.nodes) {
          const auto before = range_in(previous, node.id);
          const auto now = made.ranges.contains(node.id) ? made.ranges.at(node.id) : held_range{};
          if (before.end > before.begin && (before.begin != now.begin || before.end != now.end))
            moved.insert(node.id);
        }
      }
      if (!gap) {
        size_t recent = moved.size();
        for (const auto& [who, at] : in.moved_us)
          recent += in.now_us - at < placement_rules::moves_window_us;
        if (!moved.empty()) {
          CHECK_FALSE(in.exchanging);
          CHECK(recent <= std::max<size_t>(1, in.nodes.size() / 10));
        }
        for (const auto& who : moved)
          if (in.moved_us.contains(who))
            CHECK(in.now_us - in.moved_us.at(who) >= placement_rules::node_rest_us);
      }
      for (const auto& who : moved)
        in.moved_us[who] = in.now_us;
      previous = std::move(map);
    }
  }
}
