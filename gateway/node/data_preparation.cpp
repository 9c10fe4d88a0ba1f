#include "gateway/node/data_preparation.hpp"

#include "actors/common/log.hpp"
#include "gateway/mirror/curl_fetcher.hpp"
#include "gateway/node/tokenizer_recovery.hpp"

#include <filesystem>
#include <utility>

namespace neuroshard {

kernels::result<prepared_data> prepare_node_data(const node_config& c, const model::architecture& shape,
                                                 const data_places& where, const text::progress& watch) {
  text::dataset_options how;
  how.corpus = c.data.corpus;
  how.shards = c.data.shards;
  how.cache_directory = where.cache;
  how.tokenizer_path = c.data.tokenizer;
  how.vocab_size = static_cast<uint32_t>(c.data.vocab_size);
  how.held_out = c.data.held_out;
  how.storage_bytes_max = static_cast<uint64_t>(c.data.max_storage_mb) * 1'000'000;
  const auto recovered = recover_tokenizer(how.tokenizer_path, where.checkpoints, shape);
  if (!recovered)
    return recovered.status();
  if (!recovered->empty())
    log::warn("data", "tokenizer-recovered path={} from-checkpoint={}", how.tokenizer_path, *recovered);
  how.mirror = make_curl_fetcher(where.software, authorities_of_environment());
  how.tell = [](const std::string& line) { log::warn("data", "{}", line); };
  prepared_data made;
  if (how.corpus.empty() && how.shards.empty()) {
    auto tokens = std::filesystem::exists(how.tokenizer_path)
                      ? text::tokenizer::load(how.tokenizer_path)
                      : kernels::result<text::tokenizer>(text::tokenizer{});
    if (!tokens)
      return tokens.status();
    made.tokens = std::make_shared<const text::tokenizer>(std::move(*tokens));
    return made;
  }
  auto dataset = text::prepare_dataset(how, watch);
  if (!dataset)
    return dataset.status();
  for (const auto& warning : dataset->warnings)
    log::warn("data", "{}", warning);
  made.data = std::make_shared<const text::dataset>(std::move(*dataset));
  made.tokens = std::shared_ptr<const text::tokenizer>(made.data, &made.data->tokens);
  log::info("data", "ready shards={} vocabulary={} learned={} built={}",
            made.data->source->training_ids().size(), made.tokens->vocab_size(), made.data->tokenizer_learned,
            made.data->shards_built);
  return made;
}

} // namespace neuroshard
