#pragma once

#include "kernels/core/sha256.hpp"
#include "kernels/core/status.hpp"
#include "kernels/model/architecture.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard::model {

/// One parameter tensor: a row-major f32 block inside its unit's flat buffers (weights, gradients and both
/// moments have the same layout). Matrices are [out, in].
struct parameter {
  std::string name;           ///< as in checkpoints: "layers.3.attn.q.weight"
  std::vector<int64_t> shape; ///< rank 1 or 2
  int64_t offset = 0;         ///< first element in the unit's buffer
  int64_t count = 0;          ///< elements
  double init_deviation = 0;  ///< standard deviation of the initial values; 0 = all ones (a norm)
  float weight_decay = 0;     ///< 0.1 on matrices, 0 on norms and the embedding
};

/// The smallest part of a model that is held, exchanged and hashed. q, k, v lie side by side in `layer.N`,
/// and so do gate and up: each group is one matrix for the products.
struct unit {
  std::string name;                  ///< "embed", "layer.N" or "head"
  std::vector<parameter> parameters; ///< in layout order
  int64_t count = 0;                 ///< elements of the flat buffer; no gaps
};

/// Positions of the tensors in `unit::parameters` of a layer.
enum layer_tensor : size_t { at_q, at_k, at_v, at_o, at_gate, at_up, at_down, at_attn_norm, at_ffn_norm };

unit embed_unit(const architecture& a);
unit layer_unit(const architecture& a, int64_t layer);
/// `norm.weight`, and `head.weight` before it unless tied.
unit head_unit(const architecture& a);

/// Units of layers [begin, end) with the ends asked for, in the order embed, layer.begin, ..., head.
std::vector<unit> units_of(const architecture& a, int64_t begin, int64_t end, bool embed, bool head);
/// Names of all units of a model, in hash order.
std::vector<std::string> unit_names(const architecture& a);

/// Initial values of elements [first, first + out.size()) of a tensor, spec model.md section 3: key = first 8
/// bytes of SHA-256(seed as u64 LE, name). Elements 2c and 2c+1 are r cos(2 pi u2) and r sin(2 pi u2) with r
/// = sqrt(-2 ln u1), times the deviation, in f64 and rounded once; u1 = (draw 0 / 2^11 + 1) / 2^53, u2 = draw
/// 1 / 2^11 / 2^53 of Philox at counter c. Norms are 1. `first` is even.
void initial_values(const parameter& p, uint64_t seed, int64_t first, std::span<float> out);

/// What a unit hash covers of one tensor.
struct tensor_digest {
  std::string name;
  kernels::dtype type = kernels::dtype::f32;
  std::vector<int64_t> shape;
  kernels::digest bytes{}; ///< SHA-256 of the little-endian row-major bytes
};

/// SHA-256 over the tensors sorted by name, each as name, 0x00, dtype u32, rank u32, dims u64 (LE), digest
/// (spec section 10).
kernels::digest unit_hash(std::vector<tensor_digest> tensors);
/// SHA-256 over the unit hashes in the order embed, layer.0, ..., head.
kernels::digest model_hash(std::span<const kernels::digest> units);

} // namespace neuroshard::model
