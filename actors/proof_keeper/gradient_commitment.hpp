#pragma once

#include "kernels/core/sha256.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace neuroshard {

inline constexpr std::string_view gradient_tag = "neuroshard-gradient-v1";
inline constexpr size_t gradient_samples = 1'024;
inline constexpr size_t preimage_bytes_max = 1024 * 1024;
inline constexpr size_t preimage_units_max = 4'096;

/// What a gradient commitment is the hash of (spec/economics.md section 9): enough of the first step's
/// gradient that whoever repeats the step can tell whether it was computed. Kept 24 hours, revealed on
/// challenge.
struct gradient_preimage {
  kernels::digest model_hash{};
  kernels::digest data_hash{}; ///< of the step's tokens; also draws the sampled places
  std::vector<std::pair<std::string, uint64_t>> unit_norms_e6; ///< unit, L2 norm of its gradient x 10^6
  std::vector<float> values; ///< gradient_samples of them, in the order of sampled_draws
  uint64_t loss_e6 = 0;      ///< nats x 10^6
  uint64_t batch_size = 0;
  uint64_t seq_len = 0;
};

/// Puts a preimage together. Norms and loss are rounded to 6 decimals. Nothing where there is nothing to
/// commit to: a norm, the loss or a value that is not finite, a negative norm or loss, not gradient_samples
/// values.
std::optional<gradient_preimage> preimage_of(std::span<const std::pair<std::string, double>> unit_norms,
                                             std::span<const float> values, double loss,
                                             const kernels::digest& model_hash,
                                             const kernels::digest& data_hash, uint64_t batch_size,
                                             uint64_t seq_len);

/// The bytes that are hashed; and back, or nothing for any other bytes.
std::string encode_preimage(const gradient_preimage& of);
std::optional<gradient_preimage> decode_preimage(std::string_view bytes);
kernels::digest commitment_of(std::string_view preimage);

/// Which values of a node's gradient are committed to: the first 8 bytes (little-endian) of SHA-256(data_hash
/// || n as u64 LE) for n = 0, 1, ..., each to be taken modulo the number of its parameters (see
/// sample_gradient of the layer worker).
std::vector<uint64_t> sampled_draws(const kernels::digest& data_hash);

/// How far a repeated step may differ: bit for bit on the f32 CPU path, within the norm elsewhere.
enum class agreement : uint8_t { exact, within_tolerance };

/// Why the repeated step refutes the committed one, one word; empty when it does not. Tolerances: relative L2
/// distance of the sampled values 0.05, loss 1 %.
std::string compare_gradients(const gradient_preimage& committed, const gradient_preimage& repeated,
                              agreement how);

} // namespace neuroshard
