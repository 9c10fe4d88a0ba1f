#include "actors/peer_manager/peer_table.hpp"
#include "tests/support/test.hpp"

using namespace neuroshard;

namespace {

node_description whole_model() {
  node_description own;
  own.node_id = "0123456789abcdef0123456789abcdef";
  own.layer_end = 6;
  own.has_embedding = true;
  own.has_lm_head = true;
  return own;
}

std::string missing_unit(const node_description& own, std::vector<std::string> exclude = {}) {
  const auto route = peer_table{own, 6}.route({0, std::move(exclude)}, {}, 0, 0);
  REQUIRE_FALSE(static_cast<bool>(route));
  CHECK(code_of(route.error()) == errc::no_route);
  return std::get<std::string>(problem_of(route.error()).details.at(0).second);
}

} // namespace

TEST_CASE("a node that holds the whole model is its own route") {
  const auto route = peer_table{whole_model(), 6}.route({}, {}, 0, 0);
  REQUIRE(static_cast<bool>(route));
  REQUIRE(route->hops.size() == 1);
  CHECK(route->hops[0].local);
  CHECK(route->hops[0].layer_begin == 0);
  CHECK(route->hops[0].layer_end == 6);
  CHECK(route->own_layers_only);
}

TEST_CASE("the first unit that nobody holds is named") {
  auto own = whole_model();
  CHECK(missing_unit(own, {own.node_id}) == "embed");
  own.has_lm_head = false;
  CHECK(missing_unit(own) == "head");
  own.layer_end = 4;
  CHECK(missing_unit(own) == "layer.4");
  own.layer_begin = 2;
  CHECK(missing_unit(own) == "layer.0");
  own.has_embedding = false;
  CHECK(missing_unit(own) == "embed");
}

TEST_CASE("a node alone knows no peers") {
  CHECK(peer_table{whole_model(), 6}.peers()->empty());
}
