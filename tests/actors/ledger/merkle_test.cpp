#include "actors/ledger/merkle.hpp"

#include "tests/support/test.hpp"

#include <algorithm>
#include <array>

using namespace neuroshard;

namespace {

std::vector<kernels::digest> ids_of(int count) {
  std::vector<kernels::digest> ids;
  for (int i = 0; i < count; ++i) {
    const std::array<uint8_t, 1> byte = {static_cast<uint8_t>(i)};
    ids.push_back(kernels::sha256().update(std::span<const uint8_t>(byte)).finish());
  }
  return ids;
}

} // namespace

TEST_CASE("a Merkle root is the one that proof_worked_values.py gives") {
  const std::array<std::pair<int, const char*>, 6> cases = {{
      {0, "2e1cfa82b035c26cbbbdae632cea070514eb8b773f616aaeaf668e2f0be8f10d"},
      {1, "d9de27625445003d8a9739a851e3ff8d41c0683630b4d63a88327a6aaa37c409"},
      {2, "972ffe9bfd6c300760b69f0cefe0b3cdf1d1d2e8afbb804d3db8f2f012be99e3"},
      {3, "32578241d441e9b27013c7644c81a497973b785eae08cfde9a8df961fc5258e9"},
      {5, "3afa2f51d328742e875597963a14ba48e21ab491403b5e89e1e72409978707db"},
      {8, "6a421a28811ab0ccf665da010a8a9308466faa4ff65e7d963adc4546bef43466"},
  }};
  for (const auto& [count, root] : cases) {
    CAPTURE(count);
    CHECK(kernels::to_hex(merkle_root(ids_of(count))) == root);
  }
}

TEST_CASE("a Merkle root depends on what is in it and not on the order") {
  auto ids = ids_of(7);
  const auto root = merkle_root(ids);
  std::reverse(ids.begin(), ids.end());
  CHECK(merkle_root(ids) == root);
  ids[3][0] ^= 1;
  CHECK(merkle_root(ids) != root);
  CHECK(merkle_root(ids_of(6)) != root);
  auto twice = ids_of(7);
  twice.push_back(twice.back());
  CHECK(merkle_root(twice) != root); // unlike trees that repeat an odd last node
}
