#include "kernels/model/stage_state.hpp"

namespace neuroshard::model {

status import_rows(engine& e, const activations& from, tensor to, tensor wire) {
  const tensor& in = from.view;
  if (in.type != dtype::f32 && in.type != dtype::bf16)
    return {code::invalid_argument, "activations are f32 or bf16"};
  if (in.elements() != to.elements() || !in.contiguous())
    return {code::invalid_argument, "activations have " + std::to_string(in.elements()) + " elements, but " +
                                        std::to_string(to.elements()) + " contiguous ones are wanted"};
  if (in.type == to.type)
    return e.upload(to, in.data);
  const tensor staged = make_tensor(wire.data, in.type, {to.shape[0], to.shape[1]});
  NEUROSHARD_TRY(e.upload(staged, in.data));
  return e.convert(staged, to);
}

result<activations> export_rows(engine& e, tensor from, dtype type, tensor wire) {
  if (type == dtype::unspecified)
    type = from.type;
  if (type != dtype::f32 && type != dtype::bf16)
    return status(code::invalid_argument, "activations are sent as f32 or bf16");
  tensor source = from;
  if (type != from.type) {
    source = make_tensor(wire.data, type, {from.shape[0], from.shape[1]});
    NEUROSHARD_TRY(e.convert(from, source));
  }
  auto memory = host_memory(source.bytes());
  NEUROSHARD_TRY(e.queue().copy(memory.get(), source.data, source.bytes()));
  NEUROSHARD_TRY(e.queue().wait());
  activations out;
  out.view = make_tensor(memory.get(), type, {from.shape[0], from.shape[1]});
  out.owner = std::move(memory);
  return out;
}

std::vector<int32_t> default_positions(batch_shape shape) {
  std::vector<int32_t> positions(static_cast<size_t>(shape.rows()));
  for (size_t i = 0; i < positions.size(); ++i)
    positions[i] = static_cast<int32_t>(static_cast<int64_t>(i) % shape.positions_per_sequence);
  return positions;
}

namespace {

status refuse(std::string what) {
  return {code::invalid_argument, std::move(what)};
}

status check_range(const std::vector<int32_t>& values, int64_t below, const char* what) {
  for (int32_t v : values)
    if (v < 0 || v >= below)
      return refuse(std::string(what) + " " + std::to_string(v) + " is outside of 0 ... " +
                    std::to_string(below - 1));
  return {};
}

} // namespace

result<uint32_t> check_batch(const stage_state& s, batch_shape shape, batch_operands in, bool needs_labels) {
  const int64_t rows = shape.rows();
  if (shape.sequences < 1 || shape.positions_per_sequence < 1 ||
      shape.positions_per_sequence > s.shape.max_seq_len || shape.sequences > (int64_t{1} << 20U))
    return refuse("a batch of " + std::to_string(shape.sequences) + " x " +
                  std::to_string(shape.positions_per_sequence) + " is not possible; sequences have at most " +
                  std::to_string(s.shape.max_seq_len) + " positions");
  const auto count = static_cast<size_t>(rows);
  if (s.options.embed) {
    if (in.token_ids.size() != count || in.hidden)
      return refuse("a stage with the embedding takes " + std::to_string(rows) +
                    " token ids and no activations");
    NEUROSHARD_TRY(check_range(in.token_ids, s.shape.vocab_capacity, "token id"));
  } else if (!in.hidden || !in.token_ids.empty() || in.hidden.view.elements() != rows * s.shape.hidden_dim) {
    return refuse("a stage without the embedding takes activations of " + std::to_string(rows) + " x " +
                  std::to_string(s.shape.hidden_dim) + " and no token ids");
  }
  if (!in.positions.empty()) {
    if (in.positions.size() != count)
      return refuse("there must be " + std::to_string(rows) + " positions, or none");
    NEUROSHARD_TRY(check_range(in.positions, s.shape.max_seq_len, "position"));
  }
  if (!in.lengths.empty()) {
    if (in.lengths.size() != static_cast<size_t>(shape.sequences))
      return refuse("there must be " + std::to_string(shape.sequences) + " lengths, or none");
    for (int32_t n : in.lengths)
      if (n < 1 || n > shape.positions_per_sequence)
        return refuse("length " + std::to_string(n) + " is outside of 1 ... " +
                      std::to_string(shape.positions_per_sequence));
  }
  if (in.labels.empty() && !needs_labels)
    return uint32_t{0};
  if (in.labels.size() != count)
    return refuse("there must be " + std::to_string(rows) + " labels");
  uint32_t counted = 0;
  for (int32_t label : in.labels) {
    if (label != -100 && (label < 0 || label >= s.valid_vocab))
      return refuse("label " + std::to_string(label) + " is neither -100 nor within 0 ... " +
                    std::to_string(s.valid_vocab - 1));
    counted += label >= 0 ? 1 : 0;
  }
  return counted;
}

} // namespace neuroshard::model
