#include "kernels/model/architecture.hpp"

#include "kernels/core/sha256.hpp"

#include <array>
#include <cmath>
#include <cstdlib>

namespace neuroshard::model {

using kernels::code;
using kernels::status;

namespace {

constexpr training_defaults large_training{};
constexpr training_defaults pico_training{.peak_learning_rate = 2e-3,
                                          .warmup_steps = 100,
                                          .decay_steps = 3000,
                                          .batch_size = 8,
                                          .seq_len = 256,
                                          .microbatches = 1};

architecture shape_of(int64_t layers, int64_t width, int64_t heads, int64_t kv_heads, int64_t vocab) {
  architecture a;
  a.num_layers = layers;
  a.hidden_dim = width;
  a.num_heads = heads;
  a.num_kv_heads = kv_heads;
  a.ffn_dim = 4 * width;
  a.vocab_capacity = vocab;
  return a;
}

// The tiers of model.md section 5; 40 GB is 40,000 MB there as everywhere on that page.
const std::array<preset, 7>& table() {
  static const std::array<preset, 7> all{{
      {"pico", shape_of(6, 256, 4, 2, 4096), pico_training, 0},
      {"nano", shape_of(8, 512, 4, 1, 32000), large_training, 0},
      {"micro", shape_of(16, 1024, 8, 2, 32000), large_training, 40'000},
      {"small", shape_of(24, 2048, 16, 4, 32000), large_training, 100'000},
      {"medium", shape_of(32, 3072, 24, 6, 32000), large_training, 400'000},
      {"large", shape_of(48, 5120, 40, 10, 32000), large_training, 1'600'000},
      {"xl", shape_of(64, 7168, 56, 14, 32000), large_training, 6'000'000},
  }};
  return all;
}

status refuse(std::string_view field, int64_t value, std::string_view allowed) {
  return {code::invalid_argument,
          std::string(field) + " is " + std::to_string(value) + ", but must be " + std::string(allowed)};
}

/// digits [. digits] [e [-] digits], at most 20 characters, positive and finite: text that everybody reads
/// alike.
bool is_decimal(std::string_view text) {
  size_t at = 0;
  const auto digits = [&] {
    const size_t before = at;
    while (at < text.size() && text[at] >= '0' && text[at] <= '9')
      ++at;
    return at > before;
  };
  if (text.size() > 20 || !digits())
    return false;
  if (at < text.size() && text[at] == '.') {
    ++at;
    if (!digits())
      return false;
  }
  if (at < text.size() && text[at] == 'e') {
    ++at;
    if (at < text.size() && text[at] == '-')
      ++at;
    if (!digits())
      return false;
  }
  if (at != text.size())
    return false;
  const double value = std::strtod(std::string(text).c_str(), nullptr);
  return std::isfinite(value) && value > 0;
}

status refuse_text(std::string_view field, std::string_view value, std::string_view allowed) {
  return {code::invalid_argument, std::string(field) + " is \"" + std::string(value.substr(0, 40)) +
                                      "\", but must be " + std::string(allowed)};
}

} // namespace

double architecture::rope_base_value() const {
  return std::strtod(rope_base.c_str(), nullptr);
}

double architecture::norm_eps_value() const {
  return std::strtod(norm_eps.c_str(), nullptr);
}

int64_t architecture::layer_parameters() const noexcept {
  return 2 * hidden_dim * q_width() + 2 * hidden_dim * kv_width() + 3 * hidden_dim * ffn_dim + 2 * hidden_dim;
}

std::span<const preset> presets() {
  return table();
}

const preset* find_preset(std::string_view name) {
  for (const preset& p : table())
    if (p.name == name)
      return &p;
  return nullptr;
}

status check(const architecture& a) {
  if (a.num_layers < 1 || a.num_layers > 1024)
    return refuse("num_layers", a.num_layers, "1 ... 1024");
  if (a.hidden_dim < 32 || a.hidden_dim > 16384 || a.hidden_dim % 32 != 0)
    return refuse("hidden_dim", a.hidden_dim, "a multiple of 32 in 32 ... 16384");
  if (a.num_heads < 1 || a.hidden_dim % a.num_heads != 0)
    return refuse("num_heads", a.num_heads, "a divisor of hidden_dim (" + std::to_string(a.hidden_dim) + ")");
  if (a.head_dim() % 8 != 0 || a.head_dim() > 256)
    return refuse("hidden_dim / num_heads", a.head_dim(), "a multiple of 8, at most 256");
  if (a.num_kv_heads < 1 || a.num_heads % a.num_kv_heads != 0)
    return refuse("num_kv_heads", a.num_kv_heads,
                  "a divisor of num_heads (" + std::to_string(a.num_heads) + ")");
  if (a.ffn_dim < 16 || a.ffn_dim > 131072 || a.ffn_dim % 8 != 0)
    return refuse("ffn_dim", a.ffn_dim, "a multiple of 8 in 16 ... 131072");
  if (a.vocab_capacity < 64 || a.vocab_capacity > 10'000'000 || a.vocab_capacity % 64 != 0)
    return refuse("vocab_capacity", a.vocab_capacity, "a multiple of 64 in 64 ... 10000000");
  if (a.max_seq_len < 16 || a.max_seq_len > 131072)
    return refuse("max_seq_len", a.max_seq_len, "16 ... 131072");
  if (!is_decimal(a.rope_base) || a.rope_base_value() <= 1)
    return refuse_text("rope_base", a.rope_base, "a decimal number above 1, like 10000");
  if (!is_decimal(a.norm_eps) || a.norm_eps_value() >= 1)
    return refuse_text("norm_eps", a.norm_eps, "a decimal number between 0 and 1, like 1e-6");
  if (a.num_experts != 0 || a.top_k != 0)
    return {code::unsupported, "num_experts is " + std::to_string(a.num_experts) +
                                   "; this version runs dense models only (num_experts 0, top_k 0)"};
  return {};
}

std::string architecture_id(const architecture& a) {
  const auto hash = kernels::sha256::of(canonical_json(a));
  return kernels::to_hex(hash).substr(0, 16);
}

uint64_t training_memory(int64_t parameters, kernels::dtype compute) noexcept {
  const uint64_t each = compute == kernels::dtype::bf16 ? 18 : 16;
  return static_cast<uint64_t>(parameters) * each / 5 * 6;
}

uint64_t serving_memory(int64_t parameters, kernels::dtype compute) noexcept {
  return static_cast<uint64_t>(parameters) * kernels::size_of(compute);
}

uint64_t diloco_memory(int64_t parameters) noexcept {
  return static_cast<uint64_t>(parameters) * 12;
}

uint64_t checkpoint_bytes(int64_t parameters, bool with_diloco) noexcept {
  return static_cast<uint64_t>(parameters) * (with_diloco ? 24 : 12);
}

uint64_t kv_bytes_per_token(const architecture& a, kernels::dtype compute) noexcept {
  return static_cast<uint64_t>(2 * a.kv_width()) * kernels::size_of(compute);
}

uint64_t activation_estimate(const architecture& a, int64_t tokens, kernels::dtype compute,
                             bool recompute) noexcept {
  const uint64_t each = (recompute ? 4 : 74) / (compute == kernels::dtype::bf16 ? 2 : 1);
  return each * static_cast<uint64_t>(tokens * a.hidden_dim);
}

} // namespace neuroshard::model
