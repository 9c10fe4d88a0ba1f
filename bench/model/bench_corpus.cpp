#include "bench/model/bench_corpus.hpp"

#include "bench/model/bench_support.hpp"

#include <cstdlib>
#include <filesystem>

namespace neuroshard::bench {

text::dataset open_corpus(std::string corpus, const std::string& folder, uint32_t vocab_size) {
  if (corpus.empty()) {
    const char* const home = std::getenv("HOME");
    corpus = std::string(home != nullptr ? home : "") + "/.neuroshard/corpus";
  }
  if (!std::filesystem::exists(corpus))
    die("there is no corpus at " + corpus +
        ": start config/run once, or make one with config/corpus/make_corpus and give --corpus");
  text::dataset_options how;
  how.corpus = corpus;
  how.cache_directory = folder + "/data_cache";
  how.tokenizer_path = folder + "/tokenizer.json";
  how.vocab_size = vocab_size;
  auto made = text::prepare_dataset(how);
  if (!made.ok())
    die(made.status().message());
  return std::move(*made);
}

} // namespace neuroshard::bench
