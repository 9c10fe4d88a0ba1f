#include "kernels/core/philox.hpp"
#include "kernels/core/sha256.hpp"
#include "kernels/model/parameters.hpp"
#include "tests/support/test.hpp"

#include <cmath>
#include <cstring>

using namespace neuroshard::model;
using namespace neuroshard::kernels;

namespace {

architecture tiny() {
  architecture a;
  a.num_layers = 2;
  a.hidden_dim = 64;
  a.num_heads = 4;
  a.num_kv_heads = 2;
  a.ffn_dim = 96;
  a.vocab_capacity = 128;
  a.max_seq_len = 64;
  return a;
}

std::string le(uint64_t value, size_t bytes) {
  std::string out;
  for (size_t i = 0; i < bytes; ++i)
    out += static_cast<char>(value >> (8 * i) & 0xff);
  return out;
}

std::string raw(const digest& d) {
  return {reinterpret_cast<const char*>(d.data()), d.size()};
}

} // namespace

TEST_CASE("the units of a model hold every parameter once, without gaps, with the published names") {
  for (bool tied : {false, true}) {
    architecture a = tiny();
    a.tie_embeddings = tied;
    int64_t total = 0;
    std::vector<std::string> names;
    for (const unit& u : units_of(a, 0, a.num_layers, true, true)) {
      int64_t at = 0;
      for (const parameter& p : u.parameters) {
        CHECK(p.offset == at);
        at += p.count;
        names.push_back(p.name);
        const bool matrix = p.shape.size() == 2;
        CHECK(p.weight_decay == (matrix && p.name != "embed.weight" ? 0.1F : 0.0F));
      }
      CHECK(u.count == at);
      total += u.count;
    }
    CHECK(total == a.parameters());
    CHECK(names.front() == "embed.weight");
    CHECK(names[1] == "layers.0.attn.q.weight");
    CHECK(names.back() == "norm.weight");
    CHECK(names.size() == (tied ? 20 : 21));
  }
  const unit layer = layer_unit(tiny(), 1);
  CHECK(layer.name == "layer.1");
  CHECK(layer.parameters[at_k].shape == std::vector<int64_t>{32, 64});
  CHECK(layer.parameters[at_down].shape == std::vector<int64_t>{64, 96});
  CHECK(layer.parameters[at_ffn_norm].name == "layers.1.ffn_norm.weight");
  CHECK(unit_names(tiny()) == std::vector<std::string>{"embed", "layer.0", "layer.1", "head"});
}

TEST_CASE("initial values follow the published generator and can be made from any place") {
  const unit layer = layer_unit(tiny(), 0);
  const parameter& p = layer.parameters[at_o];
  std::vector<float> all(static_cast<size_t>(p.count));
  initial_values(p, 42, 0, all);
  // Element 1000 by the rule, written out here a second time.
  const digest d = sha256::of(le(42, 8) + p.name);
  uint64_t key = 0;
  std::memcpy(&key, d.data(), 8);
  const double u1 = static_cast<double>((philox_u64(key, 500, 0) >> 11) + 1) / 9007199254740992.0;
  const double u2 = static_cast<double>(philox_u64(key, 500, 1) >> 11) / 9007199254740992.0;
  const double r = std::sqrt(-2 * std::log(u1)) * 0.02 / std::sqrt(4.0);
  CHECK(std::abs(all[1000] - r * std::cos(6.283185307179586 * u2)) < 1e-8);
  CHECK(std::abs(all[1001] - r * std::sin(6.283185307179586 * u2)) < 1e-8);

  std::vector<float> part(33);
  initial_values(p, 42, 500, part);
  CHECK(std::memcmp(part.data(), all.data() + 500, part.size() * sizeof(float)) == 0);
  std::vector<float> other(all.size());
  initial_values(p, 43, 0, other);
  CHECK(other != all);

  double sum = 0;
  double squares = 0;
  for (float x : all) {
    sum += x;
    squares += double{x} * x;
  }
  const auto n = static_cast<double>(all.size());
  CHECK(std::abs(sum / n) < 4 * 0.01 / std::sqrt(n));
  CHECK(std::abs(std::sqrt(squares / n) / 0.01 - 1) < 0.05);

  std::vector<float> gain(64);
  initial_values(layer.parameters[at_attn_norm], 42, 0, gain);
  CHECK(gain == std::vector<float>(64, 1.0F));
}

TEST_CASE("unit and model hashes follow the published rule") {
  const std::string bytes_a(24, 'a');
  const std::string bytes_b(8, 'b');
  tensor_digest a{"z.weight", dtype::f32, {2, 3}, sha256::of(bytes_a)};
  tensor_digest b{"a.weight", dtype::bf16, {4}, sha256::of(bytes_b)};
  const std::string text = std::string("a.weight") + '\0' + le(2, 4) + le(1, 4) + le(4, 8) + raw(b.bytes) +
                           "z.weight" + '\0' + le(1, 4) + le(2, 4) + le(2, 8) + le(3, 8) + raw(a.bytes);
  const digest expected = sha256::of(text);
  CHECK(unit_hash({a, b}) == expected);
  CHECK(unit_hash({b, a}) == expected); // sorted by name
  const digest units[] = {expected, sha256::of(bytes_a)};
  CHECK(model_hash(units) == sha256::of(raw(units[0]) + raw(units[1])));
  // A fixed value, made with Python's hashlib and struct.
  CHECK(to_hex(expected) == "81a9d0a704b312312b9d1b321dbf2b60aef428ea9e4da9174420873ae783ff92");
}
