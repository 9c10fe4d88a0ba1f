#pragma once

#include "kernels/core/backend.hpp"
#include "kernels/model/parameters.hpp"

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

namespace neuroshard::model {

/// The weights of a serving copy as row-major bytes in host memory, for hashing. Made with the copy, read by
/// any thread.
struct canonical_tensor {
  std::string name;
  kernels::dtype type = kernels::dtype::f32;
  std::vector<int64_t> shape;
  std::vector<std::byte> bytes;
};
struct canonical_unit {
  std::string name;
  std::vector<canonical_tensor> tensors;
};
struct canonical_weights {
  std::vector<canonical_unit> units;
  /// Unit hashes in order; about 1 ms per 2 MB. Any thread.
  std::vector<kernels::digest> unit_hashes() const;
  /// The model hash: what answers carry where the stage holds the whole model.
  kernels::digest hash() const;
};

/// A pinned, immutable copy of a stage's weights in compute dtype. Shared by the sessions that generate with
/// it and by the stage while it is the newest; its device memory is freed with the last share. Reading it
/// needs the stage's queue; the members below may be called from any thread.
class serving_copy {
public:
  uint64_t id() const noexcept { return id_; } ///< counts up with each copy of a stage, from 1
  uint64_t version() const noexcept {
    return version_;
  }                                                  ///< as given by the maker (outer step, or any number)
  uint64_t bytes() const noexcept { return bytes_; } ///< device memory
  kernels::dtype compute() const noexcept { return compute_; }

  /// The bytes to hash, until drop_canonical(); null when they were not asked for or are dropped. Costs
  /// bytes() of host memory.
  std::shared_ptr<const canonical_weights> canonical() const;
  void drop_canonical() const;

private:
  friend struct serving_maker;
  friend struct weights_access;
  serving_copy() = default;

  struct layer_weights {
    kernels::tensor qkv, o, gate_up, down; ///< prepared with weight_use::serve
    kernels::tensor attn_norm, ffn_norm;   ///< f32 [d]; values rounded to the compute dtype
  };
  uint64_t id_ = 0;
  uint64_t version_ = 0;
  uint64_t bytes_ = 0;
  kernels::dtype compute_ = kernels::dtype::f32;
  kernels::buffer_ptr memory_;
  std::vector<layer_weights> layers_;
  kernels::tensor embedding_; ///< act [V, d]
  kernels::tensor norm_;      ///< f32 [d]
  kernels::tensor head_;      ///< prepared
  mutable std::mutex guard_;
  mutable std::shared_ptr<const canonical_weights> canonical_;
};
using serving_ptr = std::shared_ptr<const serving_copy>;

} // namespace neuroshard::model
