#include "kernels/text/shard_writer.hpp"

#include "kernels/core/philox.hpp"
#include "kernels/core/sha256.hpp"
#include "kernels/text/files.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <set>
#include <system_error>
#include <unistd.h>
#include <utility>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;
namespace fs = std::filesystem;

constexpr uint64_t tokens_min = 4;         // 2 to train on, 2 to hold out
constexpr double heldout_share_max = 0.75; // of all tokens, when whole documents are held out
constexpr size_t sources_named_max = 4;    // in the manifest's line of a shard
constexpr uint64_t tokens_between_reports = 1 << 18;

struct file_closer {
  void operator()(std::FILE* file) const noexcept { std::fclose(file); }
};

// A part of the spooled tokens that stays together.
struct part {
  uint64_t from;
  uint64_t tokens;
  uint32_t source;
};

uint64_t sum(std::span<const part> parts) {
  uint64_t total = 0;
  for (const part& p : parts)
    total += p.tokens;
  return total;
}

// Fisher-Yates from a fixed key: equal corpora give equal shards on every node.
void shuffle(std::vector<part>& parts) {
  const kernels::digest digest = kernels::sha256::of("neuroshard: order of training documents");
  uint64_t key = 0;
  for (size_t i = 8; i-- > 0;)
    key = (key << 8) | digest[i];
  for (size_t i = parts.size(); i > 1; --i)
    std::swap(parts[i - 1], parts[kernels::philox_below(key, i, 0, i)]);
}

// Takes the held-out part off the end of `parts`: whole documents until the share is reached. Where that
// would take most of the text (one document, or a last one that is nearly all of it) the cut goes through the
// document.
std::vector<part> split_off(std::vector<part>& parts, double share) {
  const uint64_t total = sum(parts);
  const auto wanted =
      std::max<uint64_t>(2, static_cast<uint64_t>(std::llround(static_cast<double>(total) * share)));
  std::vector<part> held;
  uint64_t taken = 0;
  while (parts.size() > 1 && taken < wanted) {
    const uint64_t tokens = parts.back().tokens;
    if (static_cast<double>(taken + tokens) > heldout_share_max * static_cast<double>(total))
      break;
    taken += tokens;
    held.insert(held.begin(), parts.back());
    parts.pop_back();
  }
  if (held.empty()) {
    part& last = parts.back();
    const uint64_t cut = std::min(wanted, last.tokens - (parts.size() > 1 ? 0 : 2));
    held.push_back({last.from + last.tokens - cut, cut, last.source});
    last.tokens -= cut;
    if (last.tokens == 0)
      parts.pop_back();
  }
  return held;
}

// How many tokens each shard gets.
std::vector<uint64_t> shard_sizes(uint64_t tokens) {
  std::vector<uint64_t> sizes;
  if (tokens <= shard_tokens_full * shards_min) {
    const uint64_t count = std::clamp<uint64_t>(tokens / 2, 1, shards_min);
    for (uint64_t i = 0; i < count; ++i)
      sizes.push_back(tokens / count + (i < tokens % count ? 1 : 0));
    return sizes;
  }
  sizes.assign(tokens / shard_tokens_full, shard_tokens_full);
  if (tokens % shard_tokens_full >= 2) // a shard of one token has no window
    sizes.push_back(tokens % shard_tokens_full);
  return sizes;
}

// Reads parts one after another.
class part_reader {
public:
  part_reader(std::span<const part> parts, const token_id* spooled) : parts_(parts), spooled_(spooled) {}

  // The next tokens that lie together, at most `most`; empty at the end.
  std::span<const token_id> next(uint64_t most, uint32_t& source) {
    while (at_ < parts_.size() && done_ == parts_[at_].tokens) {
      ++at_;
      done_ = 0;
    }
    if (at_ == parts_.size())
      return {};
    const part& p = parts_[at_];
    const uint64_t n = std::min(most, p.tokens - done_);
    source = p.source;
    done_ += n;
    return {spooled_ + p.from + done_ - n, n};
  }

private:
  std::span<const part> parts_;
  const token_id* spooled_;
  size_t at_ = 0;
  uint64_t done_ = 0;
};

} // namespace

struct shard_writer::state {
  options how;
  std::string spool_path;
  std::unique_ptr<std::FILE, file_closer> spool;
  std::vector<part> documents;
  std::vector<std::string> sources;
  uint64_t tokens = 0;
  bool full = false;
  uint64_t written = 0; // while finishing
  uint64_t reported = 0;

  ~state() {
    spool.reset();
    if (!spool_path.empty())
      ::unlink(spool_path.c_str());
  }

  std::string names(const std::set<uint32_t>& which) const {
    std::string out;
    size_t named = 0;
    for (const uint32_t source : which) {
      if (named == sources_named_max)
        return out + " and " + std::to_string(which.size() - named) + " more";
      out += (named++ == 0 ? "" : ", ") + sources[source].substr(0, 200);
    }
    return out;
  }

  // Writes the next `tokens` tokens of the reader to a file and describes it in `entry`.
  status write_shard(const std::string& path, part_reader& from, uint64_t tokens_wanted, shard_entry& entry,
                     const progress& watch) {
    auto file = atomic_file::make(path);
    if (!file)
      return file.status();
    kernels::sha256 hash;
    std::set<uint32_t> used;
    while (entry.tokens < tokens_wanted) {
      if (watch.cancelled())
        return {code::unavailable, "cancelled"};
      uint32_t source = 0;
      const auto run = from.next(tokens_wanted - entry.tokens, source);
      if (run.empty())
        return {code::internal, path + ": the spooled tokens end early"};
      NEUROSHARD_TRY(file->write(run.data(), run.size_bytes()));
      hash.update(run.data(), run.size_bytes());
      used.insert(source);
      entry.tokens += run.size();
      written += run.size();
      if (written - reported > tokens_between_reports) {
        reported = written;
        watch("write-shards", static_cast<double>(written) / static_cast<double>(tokens));
      }
    }
    entry.sha256 = kernels::to_hex(hash.finish());
    entry.source = names(used);
    return file->commit();
  }

  // The manifest first: without it the directory counts as unfinished.
  status remove_older() const {
    std::error_code problem;
    fs::remove(how.directory + "/manifest.json", problem);
    std::vector<std::string> names; // first all of them: removing while listing may skip entries
    for (fs::directory_iterator at(how.directory, problem), end; !problem && at != end; at.increment(problem))
      names.push_back(at->path().filename().string());
    for (const std::string& name : names) {
      std::error_code ignored; // what cannot be removed is written over or fails there
      const bool spool_of_another = name.starts_with("tokens.tmp") && !spool_path.ends_with("/" + name);
      if ((name.starts_with("shard_") && name.find(".bin") != std::string::npos) ||
          name.starts_with("heldout.bin") || name.starts_with("tail_") ||
          name.starts_with("manifest.json.tmp") || spool_of_another)
        fs::remove(how.directory + "/" + name, ignored);
    }
    if (problem)
      return file_error(how.directory, "cannot be written", problem.value());
    return {};
  }
};

shard_writer::shard_writer(std::unique_ptr<state> held) : state_(std::move(held)) {}
shard_writer::shard_writer(shard_writer&&) noexcept = default;
shard_writer& shard_writer::operator=(shard_writer&&) noexcept = default;
shard_writer::~shard_writer() = default;

uint64_t shard_writer::tokens() const noexcept {
  return state_->tokens;
}

result<shard_writer> shard_writer::make(options how) {
  if (!(how.held_out > 0 && how.held_out <= 0.5))
    return status{code::invalid_argument, "held_out: allowed are shares above 0 up to 0.5"};
  std::error_code problem;
  fs::create_directories(how.directory, problem);
  if (problem)
    return file_error(how.directory, "cannot be made", problem.value());
  auto made = std::make_unique<state>();
  made->how = std::move(how);
  made->spool_path = made->how.directory + "/tokens.tmp" + std::to_string(::getpid());
  made->spool.reset(std::fopen(made->spool_path.c_str(), "wbe"));
  if (!made->spool)
    return file_error(made->spool_path, "cannot be written", errno);
  return shard_writer(std::move(made));
}

result<bool> shard_writer::add(std::span<const token_id> document, std::string_view source) {
  state& s = *state_;
  if (s.full || document.empty())
    return !s.full;
  const uint64_t room = s.how.tokens_max - s.tokens;
  if (document.size() + 1 > room) {
    s.full = true;
    if (room < 2)
      return false;
    document = document.first(room - 1);
  }
  const token_id end = eos_id;
  if (std::fwrite(document.data(), sizeof(token_id), document.size(), s.spool.get()) != document.size() ||
      std::fwrite(&end, sizeof end, 1, s.spool.get()) != 1)
    return file_error(s.spool_path, "cannot be written", errno);
  if (s.sources.empty() || s.sources.back() != source)
    s.sources.emplace_back(source);
  s.documents.push_back({s.tokens, document.size() + 1, static_cast<uint32_t>(s.sources.size() - 1)});
  s.tokens += document.size() + 1;
  return !s.full;
}

result<shard_manifest> shard_writer::finish(uint64_t bytes_left_out, const progress& watch) {
  state& s = *state_;
  if (s.tokens < tokens_min)
    return status{code::invalid_argument, "the corpus is too small: " + std::to_string(s.tokens) +
                                              " tokens, at least " + std::to_string(tokens_min) +
                                              " are needed"};
  std::FILE* spool = s.spool.release();
  if (std::fclose(spool) != 0)
    return file_error(s.spool_path, "cannot be written", errno);
  const auto mapped = mapped_file::open(s.spool_path);
  if (!mapped)
    return mapped.status();
  const auto* spooled = reinterpret_cast<const token_id*>((*mapped)->bytes().data());
  NEUROSHARD_TRY(s.remove_older());

  shard_manifest made;
  made.documents = s.documents.size();
  made.held_out_share = s.how.held_out;
  made.tokenizer_hash = s.how.tokenizer_hash;
  made.corpus_fingerprint = s.how.corpus_fingerprint;
  made.bytes_left_out = bytes_left_out;

  const std::vector<part> held = split_off(s.documents, s.how.held_out);
  shuffle(s.documents);
  part_reader heldout_reader(held, spooled);
  made.heldout.emplace();
  NEUROSHARD_TRY(
      s.write_shard(s.how.directory + "/heldout.bin", heldout_reader, sum(held), *made.heldout, watch));
  part_reader reader(s.documents, spooled);
  for (const uint64_t size : shard_sizes(sum(s.documents))) {
    shard_entry entry;
    entry.id = made.shards.size();
    NEUROSHARD_TRY(
        s.write_shard(s.how.directory + "/" + shard_file_name(entry.id), reader, size, entry, watch));
    made.total_tokens += entry.tokens;
    made.shards.push_back(std::move(entry));
  }
  NEUROSHARD_TRY(write_file(s.how.directory + "/manifest.json", made.to_json()));
  watch("write-shards", 1.0);
  return made;
}

} // namespace neuroshard::text
