#include "actors/identity/wire.hpp"
#include "actors/peer_manager/layer_map.hpp"
#include "tests/actors/peer_manager/peer_fixture.hpp"

using namespace neuroshard;
using namespace neuroshard::test;

namespace {

constexpr int64_t map_now_ms = 1'800'000'000'000;
constexpr int64_t minute_us = 60'000'000;

std::string map_node(char digit) {
  return std::string(32, digit);
}

layer_map small_map() {
  layer_map map;
  map.version = 7;
  map.architecture = R"({"num_layers":2})";
  map.training = R"({"diloco_steps":500})";
  map.layers = {{"embed", {map_node('a')}, kernels::sha256::of("e")},
                {"layer.0", {map_node('a')}, {}},
                {"layer.1", {map_node('a'), map_node('b')}, kernels::sha256::of("1")},
                {"head", {map_node('b')}, {}}};
  map.model_version = 3;
  map.model_hash = kernels::sha256::of("model");
  return map;
}

bool is_refused(const layer_map& map) {
  return !decode_layer_map(encode_layer_map(map));
}

signed_map map_of(char signer, uint64_t version, std::vector<char> holders) {
  signed_map made;
  made.signer = map_node(signer);
  made.what.version = version;
  for (const char one : holders)
    made.what.layers.push_back({"layer.0", {map_node(one)}, {}});
  return made;
}

} // namespace

TEST_CASE("a layer map survives its bytes, field by field") {
  const auto map = small_map();
  const auto back = decode_layer_map(encode_layer_map(map));
  REQUIRE(static_cast<bool>(back));
  CHECK(*back == map);
  CHECK(range_in(*back, map_node('a')) == held_range{0, 2, true, false});
  CHECK(range_in(*back, map_node('b')) == held_range{1, 2, false, true});
  CHECK(range_in(*back, map_node('c')).empty());
  CHECK(layers_of(*back) == 2);
  CHECK(complete(*back));
  CHECK_FALSE(names_only(*back, map_node('a')));
}

TEST_CASE("a layer map that is out of its bounds or contradicts itself is refused") {
  auto map = small_map();
  map.version = 0;
  CHECK(is_refused(map));
  map = small_map();
  map.architecture.assign(map_rules::text_bytes_max + 1, 'x');
  CHECK(is_refused(map));
  map = small_map();
  map.layers[1].unit = "layer.1";
  CHECK(is_refused(map));
  map = small_map();
  map.layers.pop_back();
  CHECK(is_refused(map));
  map = small_map();
  map.layers[2].holders = {map_node('b'), map_node('a')}; // not ascending
  CHECK(is_refused(map));
  map = small_map();
  map.layers[2].holders = {map_node('a'), map_node('a')};
  CHECK(is_refused(map));
  map = small_map();
  map.layers[2].holders = {map_node('a'), "short"};
  CHECK(is_refused(map));
  map = small_map();
  map.layers[0].holders = {map_node('b')}; // embed without layer.0
  CHECK(is_refused(map));
  map = small_map();
  map.layers[3].holders = {map_node('c')}; // head without the last layer
  CHECK(is_refused(map));
  map = small_map();
  map.layers[2].holders = {map_node('b')};
  map.layers[3].holders = {map_node('a'), map_node('b')}; // a gap in what one holds
  CHECK(is_refused(map));
  map = small_map();
  for (char digit = '0'; digit <= '9'; ++digit)
    map.layers[1].holders.insert(map.layers[1].holders.begin(), std::string(31, '0') + digit);
  std::sort(map.layers[1].holders.begin(), map.layers[1].holders.end());
  CHECK_FALSE(is_refused(map));
  for (char digit = '1'; digit <= '6'; ++digit)
    map.layers[1].holders.insert(map.layers[1].holders.begin(), std::string(30, '0') + digit + '0');
  std::sort(map.layers[1].holders.begin(), map.layers[1].holders.end());
  CHECK(is_refused(map)); // 17 holders
}

TEST_CASE("bytes that are cut or flipped anywhere make no crash and no contradiction") {
  const auto bytes = encode_layer_map(small_map());
  for (size_t i = 0; i < bytes.size(); ++i) {
    decode_layer_map(bytes.substr(0, i));
    for (int bit = 0; bit < 8; ++bit) {
      auto changed = bytes;
      changed[i] = static_cast<char>(changed[i] ^ (1 << bit));
      if (const auto map = decode_layer_map(changed)) {
        CHECK(map->layers.size() >= 3);
        CHECK(map->version != 0);
      }
    }
  }
}

TEST_CASE("a layer map is its signer's, under its own tag") {
  const auto who = identity_of(1);
  const auto made = sign_map(*who, small_map());
  const auto read = read_map(made->blob, map_now_ms);
  REQUIRE(static_cast<bool>(read));
  CHECK((*read)->what == small_map());
  CHECK((*read)->signer == who->node_id());
  auto forged = made->blob;
  forged.payload[3] ^= 1;
  CHECK_FALSE(static_cast<bool>(read_map(forged, map_now_ms)));
  const auto other_tag = who->sign_as_node("neuroshard-node-v1", encode_layer_map(small_map()));
  CHECK(code_of(read_map(other_tag, map_now_ms).error()) == errc::unauthorized);
}

TEST_CASE("the keeper is the lowest id that is there for a minute") {
  const auto a = map_node('a'), b = map_node('b'), c = map_node('c');
  CHECK(keeper_of(b, 0, {}, {}, 0) == b); // alone, from the first moment
  CHECK(keeper_of(b, 0, {{a, 0}, {c, 0}}, {}, minute_us) == a);
  CHECK(keeper_of(b, 0, {{a, 1}, {c, 0}}, {}, minute_us) == b); // not yet
  CHECK(keeper_of(a, 1, {{b, 1}, {c, 0}}, {}, minute_us) == c);
  // Nobody for a minute: the signer of the map at hand as long as it is there, else the lowest.
  CHECK(keeper_of(b, 0, {{a, 0}, {c, 0}}, c, 1) == c);
  CHECK(keeper_of(b, 0, {{a, 0}, {c, 0}}, map_node('d'), 1) == a);
  CHECK(keeper_of(b, 0, {{a, 0}, {c, 0}}, b, 1) == b);
  CHECK(keeper_is_settled(0, {}, minute_us));
  CHECK_FALSE(keeper_is_settled(1, {{a, 2}}, minute_us));
}

TEST_CASE("the keeper's newest map is held, whoever else signs") {
  const auto a = map_node('a');
  const auto held = std::make_shared<const signed_map>(map_of('a', 5, {'a', 'b'}));
  CHECK(supersedes(map_of('a', 6, {'a', 'b'}), held, a, true));
  CHECK_FALSE(supersedes(map_of('a', 5, {'a', 'b'}), held, a, true));
  CHECK_FALSE(supersedes(map_of('b', 99, {'a', 'b'}), held, a, true));
  // A new keeper's map takes the old one's place, even from the side of a split that had counted less far.
  CHECK(supersedes(map_of('b', 4, {'a', 'b'}), held, map_node('b'), true));
  CHECK(supersedes(map_of('a', 1, {'a'}), nullptr, a, true));
}

TEST_CASE("while the keeper is open all come to the same map") {
  std::vector<signed_map> maps{map_of('c', 1, {'c'}), map_of('a', 1, {'a'}), map_of('b', 4, {'a', 'b'}),
                               map_of('c', 4, {'c', 'b'}), map_of('a', 9, {'a'})};
  std::sort(maps.begin(), maps.end(), [](auto& x, auto& y) { return x.signer < y.signer; });
  do {
    signed_map_ptr held;
    for (const auto& one : maps)
      if (supersedes(one, held, {}, false))
        held = std::make_shared<const signed_map>(one);
    CHECK(held->signer == map_node('b')); // of several nodes, the higher version, the lower signer
    CHECK(held->what.version == 4);
  } while (std::next_permutation(maps.begin(), maps.end(), [](auto& x, auto& y) {
    return std::tuple(x.signer, x.what.version) < std::tuple(y.signer, y.what.version);
  }));
  // One that nobody could follow is not taken from a stranger.
  CHECK_FALSE(supersedes(map_of('a', uint64_t{1} << 40, {'a', 'b'}), nullptr, {}, false));
  CHECK(next_version(4) == 5);
  CHECK(next_version(map_rules::version_max) == 1);
}
