#pragma once

#include "actors/common/error.hpp"
#include "actors/layer_worker/layer_worker_actor.hpp"
#include "kernels/model/stage.hpp"

#include <caf/expected.hpp>

#include <cstdint>
#include <string>
#include <vector>

/// The tensors of a request, checked and brought into the form that the model takes; and back. Nothing is
/// read before its type, rank and size are known to be right.
namespace neuroshard {

/// A label that takes no part in the loss (spec/training.md section 9).
inline constexpr int32_t no_label = -100;

/// [batch, seq] of a request, from whichever of its tensors is there.
struct batch_shape {
  int64_t batch = 0;
  int64_t seq = 0;
  std::vector<int32_t> lengths; ///< valid positions of each row; empty: all
  int64_t positions() const;    ///< valid ones, of all rows together
};

/// Errors: invalid_request naming the field. `rows_max` bounds batch x seq.
caf::expected<batch_shape> shape_of(const forward_request& request, int64_t hidden_dim, int64_t rows_max);

/// Elements of an i32 tensor [batch, seq] in host memory, each in [low, high] or equal to `also`. An absent
/// tensor gives none.
caf::expected<std::vector<int32_t>> integers_of(const tensor_handle& from, const char* field,
                                                const batch_shape& shape, int32_t low, int32_t high,
                                                int32_t also);

/// [batch, seq, d] as [batch * seq, d] without a copy.
model::activations flat(const tensor_handle& from);
/// The same, with the padded positions left out (copied only when there are any; then it must be in host
/// memory).
caf::expected<model::activations> without_padding(const tensor_handle& from, const batch_shape& shape);
/// [positions, d] of the model as [batch, seq, d], padded positions zero.
tensor_handle with_padding(const model::activations& from, const batch_shape& shape);
/// [rows, n] of the model as a handle of the given shape with as many elements.
tensor_handle handle_of(const model::activations& from, std::initializer_list<int64_t> shape);

/// invalid_request with a field.
caf::error bad_field(const char* field, std::string message);

} // namespace neuroshard
