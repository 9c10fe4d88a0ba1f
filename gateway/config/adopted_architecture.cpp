#include "gateway/config/adopted_architecture.hpp"

#include "gateway/config/data_dir.hpp"
#include "gateway/config/schema.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

namespace neuroshard {

namespace {

constexpr size_t text_bytes_max = 4'096;

} // namespace

std::string adopted_architecture_path(const std::string& data_dir) {
  return data_dir + "/architecture.json";
}

start_result<std::optional<model::architecture>> read_adopted_architecture(const std::string& data_dir) {
  const auto path = adopted_architecture_path(data_dir);
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0 && errno == ENOENT)
    return std::optional<model::architecture>{};
  const auto text = read_file_bounded(path, text_bytes_max);
  if (!text)
    return text.error();
  auto shape = model::parse_architecture(*text);
  if (!shape)
    return start_error{exit_code::data_directory, path + ": is damaged: " + shape.status().message()};
  return std::optional(std::move(*shape));
}

start_result<done> write_adopted_architecture(const std::string& data_dir, const model::architecture& what) {
  return write_file_atomically(adopted_architecture_path(data_dir), model::canonical_json(what), 0644);
}

node_config default_config_of(const model::architecture& adopted) {
  const auto known = model::presets();
  const auto same =
      std::find_if(known.begin(), known.end(), [&](const auto& one) { return one.shape == adopted; });
  auto c = default_config(same != known.end() ? same->name : "custom");
  auto& m = c.model;
  m.preset = "auto";
  m.num_layers = adopted.num_layers;
  m.hidden_dim = adopted.hidden_dim;
  m.num_heads = adopted.num_heads;
  m.num_kv_heads = adopted.num_kv_heads;
  m.ffn_dim = adopted.ffn_dim;
  m.vocab_capacity = adopted.vocab_capacity;
  m.max_seq_len = adopted.max_seq_len;
  m.rope_base = adopted.rope_base_value();
  m.norm_eps = adopted.norm_eps_value();
  m.num_experts = adopted.num_experts;
  m.top_k = adopted.top_k;
  m.tie_embeddings = adopted.tie_embeddings;
  m.adopted = model::canonical_json(adopted);
  c.data.vocab_size = adopted.vocab_capacity;
  return c;
}

} // namespace neuroshard
