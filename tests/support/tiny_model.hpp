#pragma once

#include "kernels/model/stage.hpp"
#include "tests/support/test.hpp"

#include <memory>

namespace neuroshard::test {

/// A model that the reference backend trains in milliseconds; its vocabulary is that of a tokenizer without
/// merges, rounded up.
inline model::architecture tiny_architecture() {
  model::architecture a;
  a.num_layers = 2;
  a.hidden_dim = 32;
  a.num_heads = 4;
  a.num_kv_heads = 2;
  a.ffn_dim = 48;
  a.vocab_capacity = 320;
  a.max_seq_len = 64;
  return a;
}

inline model::stage_options tiny_options(const model::architecture& a) {
  model::stage_options o;
  o.layer_end = a.num_layers;
  o.embed = true;
  o.head = true;
  o.train_tokens_max = 64;
  o.sessions_max = 8;
  o.decode_rows_max = 8;
  o.prefill_rows_max = 32;
  o.head_tile_rows = 16;
  o.slice_flops = 2e4; // many slices, as a large model has
  o.kv_pool_bytes =
      model::kv_bytes_per_token(a, o.compute) * static_cast<uint64_t>(kernels::kv_block * a.num_layers) * 40;
  return o;
}

/// On the reference backend, in f32: bit for bit the same on every machine of one instruction set. No weights
/// are set.
inline std::unique_ptr<model::stage> tiny_stage(const model::architecture& a, const model::stage_options& o) {
  kernels::device_options options;
  options.threads = 1;
  auto device = kernels::device::open(*kernels::reference_backend(), options);
  REQUIRE(device.ok());
  auto made = model::stage::make(*device, a, o);
  INFO(made.status().message());
  REQUIRE(made.ok());
  return std::move(*made);
}
inline std::unique_ptr<model::stage> tiny_stage() {
  const auto a = tiny_architecture();
  return tiny_stage(a, tiny_options(a));
}

} // namespace neuroshard::test
