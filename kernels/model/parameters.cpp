#include "kernels/model/parameters.hpp"

#include "kernels/core/philox.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace neuroshard::model {

namespace {

constexpr double deviation = 0.02;
constexpr float decay = 0.1F;

void append(unit& u, std::string name, std::vector<int64_t> shape, double init_deviation,
            float weight_decay) {
  parameter p;
  p.name = std::move(name);
  p.shape = std::move(shape);
  p.offset = u.count;
  p.count = 1;
  for (int64_t n : p.shape)
    p.count *= n;
  p.init_deviation = init_deviation;
  p.weight_decay = weight_decay;
  u.count += p.count;
  u.parameters.push_back(std::move(p));
}

void put_le(kernels::sha256& hash, uint64_t value, size_t bytes) {
  uint8_t raw[8];
  for (size_t i = 0; i < bytes; ++i)
    raw[i] = static_cast<uint8_t>(value >> (8 * i));
  hash.update(raw, bytes);
}

/// Key of Philox(K, c): the first 8 bytes (little-endian) of SHA-256(seed as u64 LE, name).
uint64_t key_of(uint64_t seed, std::string_view name) {
  kernels::sha256 hash;
  put_le(hash, seed, 8);
  const auto digest = hash.update(name).finish();
  uint64_t key = 0;
  for (size_t i = 0; i < 8; ++i)
    key |= uint64_t{digest[i]} << (8 * i);
  return key;
}

} // namespace

unit embed_unit(const architecture& a) {
  unit u;
  u.name = "embed";
  append(u, "embed.weight", {a.vocab_capacity, a.hidden_dim}, deviation, 0);
  return u;
}

unit layer_unit(const architecture& a, int64_t layer) {
  const std::string number = std::to_string(layer);
  const std::string prefix = "layers." + number + ".";
  const int64_t d = a.hidden_dim;
  const double residual = deviation / std::sqrt(2.0 * static_cast<double>(a.num_layers));
  unit u;
  u.name = "layer." + number;
  append(u, prefix + "attn.q.weight", {a.q_width(), d}, deviation, decay);
  append(u, prefix + "attn.k.weight", {a.kv_width(), d}, deviation, decay);
  append(u, prefix + "attn.v.weight", {a.kv_width(), d}, deviation, decay);
  append(u, prefix + "attn.o.weight", {d, a.q_width()}, residual, decay);
  append(u, prefix + "ffn.gate.weight", {a.ffn_dim, d}, deviation, decay);
  append(u, prefix + "ffn.up.weight", {a.ffn_dim, d}, deviation, decay);
  append(u, prefix + "ffn.down.weight", {d, a.ffn_dim}, residual, decay);
  append(u, prefix + "attn_norm.weight", {d}, 0, 0);
  append(u, prefix + "ffn_norm.weight", {d}, 0, 0);
  return u;
}

unit head_unit(const architecture& a) {
  unit u;
  u.name = "head";
  if (!a.tie_embeddings)
    append(u, "head.weight", {a.vocab_capacity, a.hidden_dim}, deviation, decay);
  append(u, "norm.weight", {a.hidden_dim}, 0, 0);
  return u;
}

std::vector<unit> units_of(const architecture& a, int64_t begin, int64_t end, bool embed, bool head) {
  std::vector<unit> units;
  if (embed)
    units.push_back(embed_unit(a));
  for (int64_t layer = begin; layer < end; ++layer)
    units.push_back(layer_unit(a, layer));
  if (head)
    units.push_back(head_unit(a));
  return units;
}

std::vector<std::string> unit_names(const architecture& a) {
  std::vector<std::string> names{"embed"};
  for (int64_t layer = 0; layer < a.num_layers; ++layer)
    names.push_back("layer." + std::to_string(layer));
  names.emplace_back("head");
  return names;
}

void initial_values(const parameter& p, uint64_t seed, int64_t first, std::span<float> out) {
  if (p.init_deviation == 0) {
    std::fill(out.begin(), out.end(), 1.0F);
    return;
  }
  constexpr double unit53 = 0x1p-53;
  const uint64_t key = key_of(seed, p.name);
  for (size_t i = 0; i < out.size(); i += 2) {
    const uint64_t counter = (static_cast<uint64_t>(first) + i) / 2;
    const double u1 = (static_cast<double>(kernels::philox_u64(key, counter, 0) >> 11) + 1) * unit53;
    const double u2 = static_cast<double>(kernels::philox_u64(key, counter, 1) >> 11) * unit53;
    const double radius = std::sqrt(-2 * std::log(u1)) * p.init_deviation;
    const double angle = 2 * std::numbers::pi * u2;
    out[i] = static_cast<float>(radius * std::cos(angle));
    if (i + 1 < out.size())
      out[i + 1] = static_cast<float>(radius * std::sin(angle));
  }
}

kernels::digest unit_hash(std::vector<tensor_digest> tensors) {
  std::sort(tensors.begin(), tensors.end(),
            [](const tensor_digest& a, const tensor_digest& b) { return a.name < b.name; });
  kernels::sha256 hash;
  for (const tensor_digest& t : tensors) {
    hash.update(t.name);
    put_le(hash, 0, 1);
    put_le(hash, static_cast<uint32_t>(t.type), 4);
    put_le(hash, t.shape.size(), 4);
    for (int64_t n : t.shape)
      put_le(hash, static_cast<uint64_t>(n), 8);
    hash.update(t.bytes);
  }
  return hash.finish();
}

kernels::digest model_hash(std::span<const kernels::digest> units) {
  kernels::sha256 hash;
  for (const auto& u : units)
    hash.update(u);
  return hash.finish();
}

} // namespace neuroshard::model
