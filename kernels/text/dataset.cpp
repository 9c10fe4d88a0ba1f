#include "kernels/text/dataset.hpp"

#include "kernels/text/bpe_learner.hpp"
#include "kernels/text/corpus.hpp"
#include "kernels/text/dataset_mirror.hpp"
#include "kernels/text/shard_writer.hpp"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <new>
#include <system_error>
#include <utility>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;

status cancelled_status() {
  return {code::unavailable, "cancelled"};
}

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

// Reports how many of the corpus's bytes are done, about a hundred times in all.
class byte_meter {
public:
  byte_meter(const progress& watch, std::string_view phase, uint64_t total)
      : watch_(watch), phase_(phase), total_(std::max<uint64_t>(total, 1)),
        step_(std::max<uint64_t>(total / 100, 1)) {}

  void add(uint64_t bytes) {
    done_ += bytes;
    if (done_ < next_)
      return;
    next_ = done_ + step_;
    watch_(phase_, std::min(1.0, static_cast<double>(done_) / static_cast<double>(total_)));
  }
  uint64_t done() const noexcept { return done_; }

private:
  const progress& watch_;
  std::string_view phase_;
  uint64_t total_;
  uint64_t step_;
  uint64_t done_ = 0;
  uint64_t next_ = 0;
};

result<tokenizer> learn(const corpus& from, uint32_t vocab_size, const progress& watch) {
  bpe_learner learner;
  byte_meter meter(watch, "count-words", from.bytes);
  for (size_t file = 0; file < from.files.size(); ++file)
    NEUROSHARD_TRY(read_documents(from, file, [&](std::string_view document, size_t) -> status {
      if (watch.cancelled())
        return cancelled_status();
      learner.add(document);
      meter.add(document.size());
      return {};
    }));
  return learner.learn(vocab_size, watch);
}

// Loads the tokenizer where there is one: it stays as it is when the corpus changes, because the model's rows
// are its ids.
status obtain_tokenizer(const dataset_options& how, const corpus* from, const progress& watch, dataset& out) {
  std::string path = how.tokenizer_path;
  if (!exists(path) && from == nullptr) {
    // Ready-made shards may bring theirs along.
    path = how.shards + "/tokenizer.json";
    if (!exists(path))
      return {code::io,
              how.tokenizer_path + ": missing; the shards in " + how.shards + " need their tokenizer"};
  }
  if (exists(path)) {
    auto loaded = tokenizer::load(path);
    if (!loaded)
      return loaded.status();
    out.tokens = std::move(*loaded);
    if (out.tokens.vocab_size() > how.vocab_size)
      return {code::invalid_argument, path + ": has " + std::to_string(out.tokens.vocab_size()) +
                                          " tokens, data.vocab_size is " + std::to_string(how.vocab_size)};
    return path == how.tokenizer_path ? status{} : out.tokens.save(how.tokenizer_path);
  }
  auto learned = learn(*from, how.vocab_size, watch);
  if (!learned)
    return learned.status();
  out.tokens = std::move(*learned);
  out.tokenizer_learned = true;
  return out.tokens.save(how.tokenizer_path);
}

status build_shards(const dataset_options& how, const corpus& from, const progress& watch, dataset& out) {
  shard_writer::options writing;
  writing.directory = how.cache_directory;
  writing.held_out = how.held_out;
  writing.tokens_max = how.storage_bytes_max / sizeof(token_id);
  writing.tokenizer_hash = kernels::to_hex(out.tokens.hash());
  writing.corpus_fingerprint = kernels::to_hex(from.fingerprint);
  auto writer = shard_writer::make(std::move(writing));
  if (!writer)
    return writer.status();
  byte_meter meter(watch, "tokenize", from.bytes);
  std::vector<token_id> ids;
  bool full = false;
  uint64_t left_out = 0;
  for (size_t file = 0; file < from.files.size(); ++file) {
    if (full) {
      left_out += from.files[file].bytes;
      continue;
    }
    NEUROSHARD_TRY(read_documents(from, file, [&](std::string_view document, size_t) -> status {
      if (watch.cancelled())
        return cancelled_status();
      if (full) {
        left_out += document.size();
        return {};
      }
      ids.clear();
      out.tokens.encode(document, ids);
      const auto more = writer->add(ids, from.files[file].name);
      if (!more)
        return more.status();
      full = !*more;
      meter.add(document.size());
      return {};
    }));
  }
  if (full)
    out.warnings.push_back(from.path + ": larger than data.max_storage_mb has room for; about " +
                           std::to_string(left_out) + " bytes at its end are not trained on");
  // A document that was cut counts as left out too, though how much of it is not known in bytes.
  auto manifest = writer->finish(full ? std::max<uint64_t>(left_out, 1) : 0, watch);
  if (!manifest && manifest.status().why() == code::invalid_argument)
    return {code::invalid_argument, from.path + ": " + manifest.status().message()};
  out.shards_built = true;
  return manifest.status();
}

// Whether the cache was made from this corpus under these settings.
bool is_current(const shard_manifest& manifest, const dataset_options& how, const corpus& from) {
  const bool same_split = manifest.held_out_share == how.held_out;
  const uint64_t bytes =
      (manifest.total_tokens + (manifest.heldout ? manifest.heldout->tokens : 0)) * sizeof(token_id);
  // With less room than it takes it is cut anew; with more, only when something had been left out.
  const bool same_room = bytes <= how.storage_bytes_max && manifest.bytes_left_out == 0;
  const bool cut_to_room = manifest.bytes_left_out != 0 && bytes <= how.storage_bytes_max &&
                           how.storage_bytes_max - bytes < 2 * sizeof(token_id);
  return same_split && (same_room || cut_to_room) && manifest.heldout &&
         manifest.corpus_fingerprint == kernels::to_hex(from.fingerprint);
}

status from_corpus(const dataset_options& how, const progress& watch, dataset& made) {
  auto from = open_corpus(how.corpus);
  if (!from)
    return from.status();
  NEUROSHARD_TRY(obtain_tokenizer(how, &*from, watch, made));
  shard_set::options opening;
  opening.vocab_size = made.tokens.vocab_size();
  opening.tokenizer_hash = kernels::to_hex(made.tokens.hash());
  opening.held_out = how.held_out;
  opening.watch = &watch;
  if (exists(how.cache_directory + "/manifest.json")) {
    auto found = shard_set::open(how.cache_directory, opening);
    if (found && is_current(found->manifest(), how, *from)) {
      made.source = made.shards = std::make_shared<const shard_set>(std::move(*found));
      return {};
    }
    if (!found && watch.cancelled())
      return cancelled_status();
    if (!found &&
        found.status().why() != code::invalid_argument) // that one is of another tokenizer, not damaged
      made.warnings.push_back(found.status().message() + "; the shards are made again from " + how.corpus);
  }
  NEUROSHARD_TRY(build_shards(how, *from, watch, made));
  auto built = shard_set::open(how.cache_directory, opening);
  if (!built)
    return built.status();
  made.source = made.shards = std::make_shared<const shard_set>(std::move(*built));
  return {};
}

status from_shards(const dataset_options& how, const progress& watch, dataset& made) {
  if (is_mirror_url(how.shards))
    return from_mirror(how, watch, made);
  NEUROSHARD_TRY(obtain_tokenizer(how, nullptr, watch, made));
  shard_set::options opening;
  opening.vocab_size = made.tokens.vocab_size();
  opening.tokenizer_hash = kernels::to_hex(made.tokens.hash());
  opening.held_out = how.held_out;
  opening.leave_out_corrupt = true;
  opening.watch = &watch;
  auto found = shard_set::open(how.shards, opening);
  if (!found)
    return found.status();
  made.warnings.insert(made.warnings.end(), found->warnings().begin(), found->warnings().end());
  made.source = made.shards = std::make_shared<const shard_set>(std::move(*found));
  return {};
}

} // namespace

result<dataset> prepare_dataset(const dataset_options& how, const progress& watch) {
  if (how.vocab_size < first_merge_id || how.vocab_size > vocab_size_max)
    return status{code::invalid_argument, "data.vocab_size " + std::to_string(how.vocab_size) +
                                              ": allowed are " + std::to_string(first_merge_id) + " to " +
                                              std::to_string(vocab_size_max)};
  try {
    dataset made;
    if (!how.shards.empty())
      NEUROSHARD_TRY(from_shards(how, watch, made));
    else if (!how.corpus.empty())
      NEUROSHARD_TRY(from_corpus(how, watch, made));
    else
      return status{code::invalid_argument, "neither data.corpus nor data.shards is given"};
    return made;
  } catch (const std::bad_alloc&) {
    return status{code::out_of_memory, "no memory to prepare the training text"};
  } catch (const std::exception& problem) {
    return status{code::internal, std::string("preparing the training text: ") + problem.what()};
  }
}

} // namespace neuroshard::text
