#include "actors/proof_keeper/gradient_commitment.hpp"

#include "actors/identity/keys.hpp"
#include "actors/ledger/canonical_text.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <span>

namespace neuroshard {

namespace {

constexpr double norm_tolerance = 0.05;
constexpr double loss_tolerance = 0.01;

std::array<uint8_t, 8> little_endian(uint64_t value) {
  std::array<uint8_t, 8> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(value >> (8 * i));
  return bytes;
}

/// Millionths, or nothing for what cannot be one.
std::optional<uint64_t> millionths(double value) {
  const double scaled = value * 1e6;
  if (!(scaled >= 0 && scaled < 9e18)) // also when it is no number
    return std::nullopt;
  return static_cast<uint64_t>(std::llround(scaled));
}

} // namespace

std::optional<gradient_preimage> preimage_of(std::span<const std::pair<std::string, double>> unit_norms,
                                             std::span<const float> values, double loss,
                                             const kernels::digest& model_hash,
                                             const kernels::digest& data_hash, uint64_t batch_size,
                                             uint64_t seq_len) {
  const auto loss_e6 = millionths(loss);
  const auto finite = [](float value) { return std::isfinite(value); };
  if (!loss_e6 || values.size() != gradient_samples || unit_norms.size() > preimage_units_max ||
      !std::all_of(values.begin(), values.end(), finite))
    return std::nullopt;
  gradient_preimage made;
  made.model_hash = model_hash;
  made.data_hash = data_hash;
  made.loss_e6 = *loss_e6;
  made.batch_size = batch_size;
  made.seq_len = seq_len;
  made.values.assign(values.begin(), values.end());
  for (const auto& [unit, norm] : unit_norms) {
    const auto norm_e6 = millionths(norm);
    if (!norm_e6)
      return std::nullopt;
    made.unit_norms_e6.emplace_back(unit, *norm_e6);
  }
  return made;
}

std::string encode_preimage(const gradient_preimage& of) {
  canonical_writer out(gradient_tag);
  out.bytes("model_hash", std::span<const uint8_t>(of.model_hash))
      .bytes("data_hash", std::span<const uint8_t>(of.data_hash))
      .number("loss_e6", of.loss_e6)
      .number("batch_size", of.batch_size)
      .number("seq_len", of.seq_len)
      .number("units", of.unit_norms_e6.size());
  for (const auto& [unit, norm_e6] : of.unit_norms_e6)
    out.text("unit", unit).number("norm_e6", norm_e6);
  std::vector<uint8_t> bytes;
  bytes.reserve(of.values.size() * sizeof(float));
  for (const float value : of.values) {
    const auto bits = std::bit_cast<uint32_t>(value);
    for (int shift = 0; shift < 32; shift += 8)
      bytes.push_back(static_cast<uint8_t>(bits >> shift));
  }
  return out.bytes("values", std::span<const uint8_t>(bytes)).payload();
}

std::optional<gradient_preimage> decode_preimage(std::string_view bytes) {
  if (bytes.size() > preimage_bytes_max)
    return std::nullopt;
  canonical_reader in(bytes, gradient_tag);
  gradient_preimage made;
  made.model_hash = in.digest("model_hash");
  made.data_hash = in.digest("data_hash");
  made.loss_e6 = in.number("loss_e6");
  made.batch_size = in.number("batch_size");
  made.seq_len = in.number("seq_len");
  const uint64_t units = in.number("units");
  if (!in.ok() || units > preimage_units_max)
    return std::nullopt;
  for (uint64_t i = 0; i < units && in.ok(); ++i) {
    std::string unit = in.text("unit");
    made.unit_norms_e6.emplace_back(std::move(unit), in.number("norm_e6"));
  }
  const std::string hex = in.text("values");
  std::vector<uint8_t> raw(hex.size() / 2);
  if (!in.done() || raw.size() != gradient_samples * sizeof(float) ||
      !from_hex(hex, raw.data(), raw.size()) || kernels::to_hex(raw) != hex)
    return std::nullopt;
  for (size_t i = 0; i < raw.size(); i += sizeof(float)) {
    uint32_t bits = 0;
    for (size_t byte = 0; byte < sizeof(float); ++byte)
      bits |= static_cast<uint32_t>(raw[i + byte]) << (8 * byte);
    made.values.push_back(std::bit_cast<float>(bits));
    if (!std::isfinite(made.values.back()))
      return std::nullopt;
  }
  return made;
}

kernels::digest commitment_of(std::string_view preimage) {
  return kernels::sha256::of(preimage);
}

std::vector<uint64_t> sampled_draws(const kernels::digest& data_hash) {
  std::vector<uint64_t> draws;
  draws.reserve(gradient_samples);
  for (uint64_t n = 0; n < gradient_samples; ++n) {
    const auto number = little_endian(n);
    const kernels::digest drawn = kernels::sha256()
                                      .update(std::span<const uint8_t>(data_hash))
                                      .update(std::span<const uint8_t>(number))
                                      .finish();
    uint64_t draw = 0;
    for (size_t i = 0; i < 8; ++i)
      draw |= uint64_t{drawn[i]} << (8 * i);
    draws.push_back(draw);
  }
  return draws;
}

std::string compare_gradients(const gradient_preimage& committed, const gradient_preimage& repeated,
                              agreement how) {
  if (committed.model_hash != repeated.model_hash)
    return "other_weights";
  if (committed.data_hash != repeated.data_hash || committed.batch_size != repeated.batch_size ||
      committed.seq_len != repeated.seq_len)
    return "other_batch";
  if (committed.values.size() != repeated.values.size() ||
      committed.unit_norms_e6.size() != repeated.unit_norms_e6.size())
    return "other_units";
  if (how == agreement::exact)
    return encode_preimage(committed) == encode_preimage(repeated) ? "" : "not_equal";
  double distance = 0, length = 0;
  for (size_t i = 0; i < repeated.values.size(); ++i) {
    const double there = repeated.values[i], difference = committed.values[i] - there;
    distance += difference * difference;
    length += there * there;
  }
  // The length is that of the checker's own gradient: a committed one cannot make its own tolerance.
  if (!(std::sqrt(distance) <= norm_tolerance * std::sqrt(length)))
    return "gradient";
  for (size_t i = 0; i < repeated.unit_norms_e6.size(); ++i) {
    const auto& [unit, norm] = repeated.unit_norms_e6[i];
    if (committed.unit_norms_e6[i].first != unit)
      return "other_units";
    const double there = static_cast<double>(norm),
                 here = static_cast<double>(committed.unit_norms_e6[i].second);
    if (!(std::abs(here - there) <= norm_tolerance * there + 1))
      return "gradient_norm";
  }
  const double loss = static_cast<double>(repeated.loss_e6);
  if (!(std::abs(static_cast<double>(committed.loss_e6) - loss) <= loss_tolerance * loss))
    return "loss";
  return {};
}

} // namespace neuroshard
