#include "actors/layer_worker/request_tensors.hpp"

#include <cstring>
#include <numeric>

namespace neuroshard {

namespace {

constexpr int64_t batch_max = 4096;

bool is_activation(kernels::dtype type) {
  return type == kernels::dtype::f32 || type == kernels::dtype::bf16;
}

/// The handle of a request that tells its shape, and its rank.
caf::expected<batch_shape> outer_shape(const forward_request& request, int64_t hidden_dim) {
  const bool by_tokens = static_cast<bool>(request.token_ids);
  const auto& from = by_tokens ? request.token_ids : request.hidden;
  const char* field = by_tokens ? "token_ids" : "hidden";
  if (!from)
    return bad_field("token_ids", "the request carries neither token ids nor activations");
  if (by_tokens && request.hidden)
    return bad_field("hidden", "token ids and activations exclude each other");
  const auto& view = from.view;
  if (view.rank != (by_tokens ? 2 : 3) || !view.contiguous())
    return bad_field(field, "the tensor has the wrong rank or strides");
  if (by_tokens ? view.type != kernels::dtype::i32 : !is_activation(view.type) || view.shape[2] != hidden_dim)
    return bad_field(field, "the tensor has the wrong type or width");
  batch_shape shape;
  shape.batch = view.shape[0];
  shape.seq = view.shape[1];
  return shape;
}

} // namespace

caf::error bad_field(const char* field, std::string message) {
  problem what;
  what.field = field;
  what.message = std::move(message);
  return refuse(errc::invalid_request, std::move(what));
}

int64_t batch_shape::positions() const {
  return lengths.empty() ? batch * seq : std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}

caf::expected<batch_shape> shape_of(const forward_request& request, int64_t hidden_dim, int64_t rows_max) {
  auto shape = outer_shape(request, hidden_dim);
  if (!shape)
    return shape;
  if (shape->batch < 1 || shape->batch > batch_max || shape->seq < 1 || shape->seq > rows_max / shape->batch)
    return bad_field(request.token_ids ? "token_ids" : "hidden",
                     "batch x seq must be 1 - " + std::to_string(rows_max) + " positions");
  const auto& lengths = request.sequence_lengths;
  if (lengths.empty())
    return shape;
  if (lengths.size() != static_cast<size_t>(shape->batch))
    return bad_field("sequence_lengths", "there must be one length for each row");
  for (const uint32_t length : lengths) {
    if (length < 1 || length > static_cast<uint64_t>(shape->seq))
      return bad_field("sequence_lengths", "a length must be 1 - " + std::to_string(shape->seq));
    shape->lengths.push_back(static_cast<int32_t>(length));
  }
  if (shape->positions() == shape->batch * shape->seq)
    shape->lengths.clear();
  return shape;
}

caf::expected<std::vector<int32_t>> integers_of(const tensor_handle& from, const char* field,
                                                const batch_shape& shape, int32_t low, int32_t high,
                                                int32_t also) {
  if (!from)
    return std::vector<int32_t>{};
  const auto& view = from.view;
  if (view.type != kernels::dtype::i32 || view.rank != 2 || view.shape[0] != shape.batch ||
      view.shape[1] != shape.seq || !view.contiguous() || !from.on_host())
    return bad_field(field, std::string("must be i32 [batch, seq] in host memory"));
  const auto* first = view.as<const int32_t>();
  std::vector<int32_t> values(first, first + shape.batch * shape.seq);
  for (const int32_t value : values)
    if ((value < low || value > high) && value != also)
      return bad_field(field, "holds " + std::to_string(value) + ", which is not in " + std::to_string(low) +
                                  " - " + std::to_string(high));
  return values;
}

model::activations flat(const tensor_handle& from) {
  model::activations rows;
  if (!from)
    return rows;
  rows.view = kernels::make_tensor(from.view.data, from.view.type,
                                   {from.view.shape[0] * from.view.shape[1], from.view.shape[2]});
  rows.owner = from.owner;
  return rows;
}

caf::expected<model::activations> without_padding(const tensor_handle& from, const batch_shape& shape) {
  if (!from || shape.lengths.empty())
    return flat(from);
  if (!from.on_host())
    return bad_field("hidden", "padded activations must be in host memory");
  const int64_t width = from.view.shape[2];
  const auto row_bytes = static_cast<size_t>(width) * kernels::size_of(from.view.type);
  auto bytes = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(shape.positions()) * row_bytes);
  const auto* source = from.view.as<const std::byte>();
  auto* to = bytes->data();
  for (int64_t b = 0; b < shape.batch; ++b) {
    const auto length = static_cast<size_t>(shape.lengths[static_cast<size_t>(b)]) * row_bytes;
    std::memcpy(to, source + static_cast<size_t>(b * shape.seq) * row_bytes, length);
    to += length;
  }
  model::activations rows;
  rows.view = kernels::make_tensor(bytes->data(), from.view.type, {shape.positions(), width});
  rows.owner = std::move(bytes);
  return rows;
}

tensor_handle with_padding(const model::activations& from, const batch_shape& shape) {
  if (!from || shape.lengths.empty())
    return handle_of(from, {shape.batch, shape.seq, from ? from.view.shape[1] : 0});
  const int64_t width = from.view.shape[1];
  const auto row_bytes = static_cast<size_t>(width) * kernels::size_of(from.view.type);
  auto bytes =
      std::make_shared<std::vector<std::byte>>(static_cast<size_t>(shape.batch * shape.seq) * row_bytes);
  const auto* source = from.view.as<const std::byte>();
  for (int64_t b = 0; b < shape.batch; ++b) {
    const auto length = static_cast<size_t>(shape.lengths[static_cast<size_t>(b)]) * row_bytes;
    std::memcpy(bytes->data() + static_cast<size_t>(b * shape.seq) * row_bytes, source, length);
    source += length;
  }
  tensor_handle handle;
  handle.view = kernels::make_tensor(bytes->data(), from.view.type, {shape.batch, shape.seq, width});
  handle.owner = std::move(bytes);
  return handle;
}

tensor_handle handle_of(const model::activations& from, std::initializer_list<int64_t> shape) {
  tensor_handle handle;
  if (!from)
    return handle;
  handle.view = kernels::make_tensor(from.view.data, from.view.type, shape);
  handle.owner = from.owner;
  return handle;
}

} // namespace neuroshard
