#pragma once

#include "kernels/core/dtype.hpp"
#include "kernels/core/status.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace neuroshard::model {

/// The shape of a NeuroLLM (spec model.md section 1). Two models with equal architectures have equal tensors;
/// the id below is what nodes compare.
struct architecture {
  int64_t num_layers = 0;          ///< L, transformer blocks
  int64_t hidden_dim = 0;          ///< d, width of the residual stream
  int64_t num_heads = 0;           ///< H, query heads
  int64_t num_kv_heads = 0;        ///< G, key/value heads; divides H
  int64_t ffn_dim = 0;             ///< f, inner width of SwiGLU
  int64_t vocab_capacity = 0;      ///< V, rows of the embedding and of the head
  int64_t max_seq_len = 2048;      ///< context in tokens
  std::string rope_base = "10000"; ///< decimal text, so that it hashes alike everywhere
  std::string norm_eps = "1e-6";   ///< decimal text
  int64_t num_experts = 0;         ///< 0 = dense
  int64_t top_k = 0;
  bool tie_embeddings = false; ///< the head's matrix is the embedding

  friend bool operator==(const architecture&, const architecture&) = default;

  int64_t head_dim() const noexcept { return num_heads > 0 ? hidden_dim / num_heads : 0; }
  int64_t q_width() const noexcept { return num_heads * head_dim(); }
  int64_t kv_width() const noexcept { return num_kv_heads * head_dim(); }
  /// Precondition: check() is ok.
  double rope_base_value() const;
  double norm_eps_value() const;

  /// Parameters of one block: 2 d H D + 2 d G D + 3 d f + 2 d.
  int64_t layer_parameters() const noexcept;
  int64_t embed_parameters() const noexcept { return vocab_capacity * hidden_dim; }
  /// The final norm, and the head's matrix unless it is tied.
  int64_t head_parameters() const noexcept {
    return hidden_dim + (tie_embeddings ? 0 : vocab_capacity * hidden_dim);
  }
  int64_t parameters() const noexcept {
    return num_layers * layer_parameters() + embed_parameters() + head_parameters();
  }
};

/// How a new model of a preset is trained unless the operator says otherwise (spec training.md section 3).
struct training_defaults {
  double peak_learning_rate = 1e-4;
  uint64_t warmup_steps = 1000;
  uint64_t decay_steps = 50000; ///< end of the cosine
  int64_t batch_size = 8;       ///< sequences
  int64_t seq_len = 512;        ///< tokens
  int64_t microbatches = 4;
};

/// A named shape with its training defaults.
struct preset {
  std::string_view name; ///< pico, nano, micro, small, medium, large, xl
  architecture shape;
  training_defaults training;
  uint64_t memory_from_mb = 0; ///< total offered memory from which the tier is sensible
};

/// All presets, smallest first. Lives as long as the program.
std::span<const preset> presets();
/// Null when there is none of that name.
const preset* find_preset(std::string_view name);

/// Whether the kernels can run this shape; the message names the field, its value and what is allowed. MoE
/// shapes are `unsupported`.
kernels::status check(const architecture& a);

/// Canonical JSON: keys sorted, no blanks, integers; rope_base and norm_eps as strings, tie_embeddings true
/// or false.
std::string canonical_json(const architecture& a);
/// Reads what canonical_json writes, in any order and with blanks; every key must be there once and no other.
/// Checks it.
kernels::result<architecture> parse_architecture(std::string_view json);
/// The first 16 hex digits of SHA-256 of the canonical JSON.
std::string architecture_id(const architecture& a);

// --------------------------------------------------------------- memory, spec model.md section 6, in bytes

/// Weights and training state: 16 bytes per parameter in f32, 18 with bf16 compute, times 1.2.
uint64_t training_memory(int64_t parameters, kernels::dtype compute) noexcept;
/// One serving copy: 4 bytes per parameter in f32, 2 in bf16.
uint64_t serving_memory(int64_t parameters, kernels::dtype compute) noexcept;
/// w0, velocity and residual of the outer loop: 12 bytes per parameter in a cohort.
uint64_t diloco_memory(int64_t parameters) noexcept;
/// On disk: 12 bytes per parameter, 24 with the outer loop's state.
uint64_t checkpoint_bytes(int64_t parameters, bool with_diloco) noexcept;
/// Keys and values of one position in one layer: 2 x G x D x size.
uint64_t kv_bytes_per_token(const architecture& a, kernels::dtype compute) noexcept;
/// Estimate of a layer's saved activations: 74 (f32) or 37 (bf16) x tokens x d; 4 or 2 with recompute.
uint64_t activation_estimate(const architecture& a, int64_t tokens, kernels::dtype compute,
                             bool recompute) noexcept;

} // namespace neuroshard::model
