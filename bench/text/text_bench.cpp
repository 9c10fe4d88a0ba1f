// How fast is text turned into training data on one core? Learns merges on a corpus, encodes and decodes it,
// draws batches.
//
//   text_bench CORPUS [VOCAB_SIZE] [JSON_FILE]      table on stdout; the same numbers as JSON
//
// Learning runs once per round from counted words to merges; every figure is the median of the rounds, with
// its spread.

#include "kernels/text/bpe_learner.hpp"
#include "kernels/text/corpus.hpp"
#include "kernels/text/data_loader.hpp"
#include "kernels/text/dataset.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

using namespace neuroshard;
using namespace neuroshard::text;

namespace {

constexpr int rounds = 5;

struct figure {
  std::string name;
  std::string unit; ///< of the rate
  std::vector<double> seconds;
  double amount = 0; ///< rate = amount / seconds

  double median() const { return seconds[seconds.size() / 2]; }
};

figure measure(const std::string& name, const std::string& unit, double amount,
               const std::function<void()>& work) {
  figure f{name, unit, {}, amount};
  for (int round = 0; round < rounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    work();
    f.seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(f.seconds.begin(), f.seconds.end());
  return f;
}

[[noreturn]] void stop(const std::string& why) {
  std::fprintf(stderr, "text_bench: %s\n", why.c_str());
  std::exit(1);
}

template <class T>
T need(kernels::result<T> outcome) {
  if (!outcome.ok())
    stop(outcome.status().message());
  return std::move(*outcome);
}

} // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4)
    stop("usage: text_bench CORPUS [VOCAB_SIZE] [JSON_FILE]");
  const auto vocab_size = static_cast<uint32_t>(argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 4096);
  const corpus from = need(open_corpus(argv[1]));
  std::vector<std::string> documents;
  const auto read_all = [&] {
    documents.clear();
    for (size_t file = 0; file < from.files.size(); ++file)
      if (const auto outcome = read_documents(from, file,
                                              [&](std::string_view document, size_t) {
                                                documents.emplace_back(document);
                                                return kernels::status{};
                                              });
          !outcome.ok())
        stop(outcome.message());
  };

  std::vector<figure> figures;
  const double megabytes = static_cast<double>(from.bytes) / 1e6;
  figures.push_back(measure("read and normalize", "MB/s", megabytes, read_all));
  tokenizer tokens;
  figures.push_back(measure("learn merges, counting included", "MB/s", megabytes, [&] {
    bpe_learner learner;
    for (const auto& document : documents)
      learner.add(document);
    tokens = need(learner.learn(vocab_size));
  }));
  std::vector<token_id> ids;
  figures.push_back(measure("encode", "MB/s", megabytes, [&] {
    ids.clear();
    for (const auto& document : documents)
      tokens.encode(document, ids);
  }));
  figures.push_back(measure("decode", "MB/s", megabytes, [&] {
    if (tokens.decode_bytes(ids).empty())
      stop("nothing decoded");
  }));

  const auto cache = std::filesystem::temp_directory_path() / ("text_bench-" + std::to_string(vocab_size));
  dataset_options how;
  how.corpus = argv[1];
  how.cache_directory = (cache / "data_cache").string();
  how.tokenizer_path = (cache / "tokenizer.json").string();
  how.vocab_size = vocab_size;
  how.storage_bytes_max = 4'000'000'000;
  figures.push_back(measure("first start: prepare_dataset", "MB/s", megabytes, [&] {
    std::filesystem::remove_all(cache);
    std::filesystem::create_directories(cache);
    need(prepare_dataset(how));
  }));
  figures.push_back(
      measure("later start: prepare_dataset", "MB/s", megabytes, [&] { need(prepare_dataset(how)); }));
  const auto set = need(prepare_dataset(how)).shards;
  const data_loader loader = need(data_loader::make(set, {"00112233445566778899aabbccddeeff"}));
  constexpr uint32_t batch = 8, seq = 256, steps = 2000;
  std::vector<int32_t> rows(batch * seq), labels(batch * seq);
  figures.push_back(measure("draw batches of 8 x 256", "Mtoken/s", 1e-6 * batch * seq * steps, [&] {
    data_cursor at;
    for (uint64_t step = 0; step < steps; ++step) {
      if (!loader.rows(at, step, batch, 0, batch, seq, rows, labels).ok())
        stop("a batch was refused");
      at = loader.advance(at, batch * seq);
    }
  }));
  std::filesystem::remove_all(cache);

  std::printf("%.2f MB, %zu documents, vocabulary %u, %zu tokens (%.2f bytes each); %d rounds, one core\n\n",
              megabytes, documents.size(), tokens.vocab_size(), ids.size(),
              megabytes * 1e6 / static_cast<double>(ids.size()), rounds);
  std::printf("| what | median s | min s | max s | rate |\n| --- | --- | --- | --- | --- |\n");
  std::string json = "{\"bench\":\"text\",\"bytes\":" + std::to_string(from.bytes) +
                     ",\"vocab_size\":" + std::to_string(tokens.vocab_size()) +
                     ",\"tokens\":" + std::to_string(ids.size()) + ",\"figures\":[";
  for (const figure& f : figures) {
    const double rate = f.amount / f.median();
    std::printf("| %s | %.4f | %.4f | %.4f | %.1f %s |\n", f.name.c_str(), f.median(), f.seconds.front(),
                f.seconds.back(), rate, f.unit.c_str());
    char line[256];
    std::snprintf(
        line, sizeof line,
        "%s{\"name\":\"%s\",\"median_s\":%.6f,\"min_s\":%.6f,\"max_s\":%.6f,\"rate\":%.3f,\"unit\":\"%s\"}",
        &f == &figures.front() ? "" : ",", f.name.c_str(), f.median(), f.seconds.front(), f.seconds.back(),
        rate, f.unit.c_str());
    json += line;
  }
  json += "]}\n";
  if (argc > 3)
    std::ofstream(argv[3]) << json;
  return 0;
}
