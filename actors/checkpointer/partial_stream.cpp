#include "actors/checkpointer/partial_stream.hpp"

#include "actors/checkpointer/checkpoint_stream_actor.hpp"
#include "actors/common/error.hpp"
#include "actors/common/kernel_error.hpp"
#include "actors/identity/wire.hpp"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

namespace neuroshard {

using kernels::code;
using kernels::status;

namespace {

namespace fs = std::filesystem;

constexpr const char* stream_data_file = "stream.bin";
constexpr const char* stream_chunks_file = "chunks.bin";
constexpr const char* stream_manifest_file = "manifest.bin";
constexpr size_t chunk_record_bytes = 8 + 32; // length as u64 LE, SHA-256
constexpr uint64_t stored_manifest_max = transfer_manifest_bytes_max + 4'096;

std::string stored_blob(const signed_blob& blob) {
  std::string out;
  wire::put_bytes(out, 1, blob.payload);
  wire::put_bytes(out, 2, wire::view_of(blob.key));
  wire::put_bytes(out, 3, wire::view_of(blob.sig));
  wire::put_bytes(out, 4, blob.delegation);
  return out;
}

bool read_blob(std::string_view bytes, signed_blob& blob) {
  return wire::read_fields(
      bytes,
      [&](const wire::field& field) {
        switch (field.number) {
        case 1:
          blob.payload = field.bytes;
          return field.is_bytes();
        case 2:
          return wire::take_exactly(field, blob.key);
        case 3:
          return wire::take_exactly(field, blob.sig);
        case 4:
          blob.delegation = field.bytes;
          return field.is_bytes();
        default:
          return true;
        }
      },
      stored_manifest_max);
}

status write_whole(const std::string& path, std::string_view bytes) {
  NEUROSHARD_TRY(remove_tree(path));
  auto file = plain_file::create(path);
  if (!file.ok())
    return file.status();
  NEUROSHARD_TRY(file->write(std::as_bytes(std::span(bytes))));
  return file->sync_and_close();
}

kernels::result<std::pair<signed_blob, transfer_manifest>>
read_stored_manifest(const std::string& directory) {
  auto text = read_small_file(directory + "/" + stream_manifest_file, stored_manifest_max);
  if (!text.ok())
    return text.status();
  signed_blob blob;
  if (!read_blob(*text, blob))
    return status(code::corrupt, "the manifest of " + directory + " is damaged");
  auto manifest = decode_transfer_manifest(blob.payload);
  if (!manifest)
    return status(code::corrupt, "the manifest of " + directory + " is damaged");
  return std::pair{std::move(blob), std::move(*manifest)};
}

caf::error bad_chunk(errc code, const char* reason, std::string message) {
  problem what;
  what.message = std::move(message);
  what.reason = reason;
  return refuse(code, std::move(what));
}

} // namespace

kernels::result<partial_stream> partial_stream::open(const std::string& folder, const signed_blob& blob,
                                                     transfer_manifest manifest) {
  partial_stream made;
  made.directory_ = folder + "/" + kernels::to_hex(manifest.sha256) + std::string(partial_suffix);
  // The same whole may be cut into tensors differently by somebody who lies about them.
  if (const auto before = read_stored_manifest(made.directory_);
      !before.ok() || before->second.tensors != manifest.tensors)
    NEUROSHARD_TRY(remove_tree(made.directory_));
  made.manifest_ = std::move(manifest);
  NEUROSHARD_TRY(make_directories(made.directory_));
  NEUROSHARD_TRY(write_whole(made.directory_ + "/" + stream_manifest_file, stored_blob(blob)));
  NEUROSHARD_TRY(made.load());
  return made;
}

status partial_stream::load() {
  auto data = plain_file::open_to_append(directory_ + "/" + stream_data_file);
  if (!data.ok())
    return data.status();
  auto chunks = plain_file::open_to_append(directory_ + "/" + stream_chunks_file);
  if (!chunks.ok())
    return chunks.status();
  data_ = std::move(*data);
  chunks_ = std::move(*chunks);
  auto data_bytes = data_.size();
  auto chunks_bytes = chunks_.size();
  if (!data_bytes.ok() || !chunks_bytes.ok())
    return {code::io, "cannot look at " + directory_};
  received_ = 0;
  whole_ = {};
  tensor_ = {};
  tensor_index_ = 0;
  uint64_t records = 0;
  std::string piece;
  for (; (records + 1) * chunk_record_bytes <= *chunks_bytes; ++records) {
    std::array<std::byte, chunk_record_bytes> record{};
    NEUROSHARD_TRY(chunks_.read(records * chunk_record_bytes, record));
    uint64_t length = 0;
    std::memcpy(&length, record.data(), sizeof length);
    if (length == 0 || length > chunk_bytes_max || length > manifest_.total_bytes - received_ ||
        length > *data_bytes - received_)
      break;
    piece.resize(length);
    NEUROSHARD_TRY(data_.read(received_, std::as_writable_bytes(std::span(piece))));
    const auto hash = kernels::sha256::of(piece);
    if (std::memcmp(hash.data(), record.data() + 8, hash.size()) != 0)
      break;
    uint64_t good_bytes = 0;
    if (!count(piece, good_bytes))
      return cut(good_bytes);
  }
  NEUROSHARD_TRY(data_.truncate(received_));
  return chunks_.truncate(records * chunk_record_bytes);
}

/// Keeps the whole chunks among the first bytes, and begins anew with them.
status partial_stream::cut(uint64_t bytes) {
  auto records_bytes = chunks_.size();
  if (!records_bytes.ok())
    return records_bytes.status();
  uint64_t kept = 0, records = 0;
  for (; (records + 1) * chunk_record_bytes <= *records_bytes; ++records) {
    std::array<std::byte, 8> record{};
    NEUROSHARD_TRY(chunks_.read(records * chunk_record_bytes, record));
    uint64_t length = 0;
    std::memcpy(&length, record.data(), sizeof length);
    if (length > bytes - kept)
      break;
    kept += length;
  }
  NEUROSHARD_TRY(data_.truncate(kept));
  NEUROSHARD_TRY(chunks_.truncate(records * chunk_record_bytes));
  return load();
}

bool partial_stream::count(std::string_view data, uint64_t& good_bytes) {
  whole_.update(data);
  while (!data.empty()) {
    const auto& tensor = manifest_.tensors[tensor_index_];
    const uint64_t left = tensor.offset + tensor.length - received_;
    const auto part = data.substr(0, std::min<uint64_t>(left, data.size()));
    tensor_.update(part);
    received_ += part.size();
    data.remove_prefix(part.size());
    if (part.size() < left)
      break;
    if (std::exchange(tensor_, {}).finish() != tensor.sha256) {
      good_bytes = tensor.offset;
      return false;
    }
    ++tensor_index_;
  }
  return true;
}

caf::error partial_stream::append(uint64_t offset, std::string_view data, const kernels::digest& sha256) {
  if (offset != received_)
    return bad_chunk(errc::invalid_request, "chunk", "A chunk came that is not the next one.");
  if (data.empty() || data.size() > chunk_bytes_max || data.size() > manifest_.total_bytes - received_)
    return bad_chunk(errc::invalid_request, "chunk", "A chunk is empty or beyond the end.");
  if (kernels::sha256::of(data) != sha256)
    return bad_chunk(errc::invalid_request, "chunk", "A chunk does not match its checksum.");
  std::array<std::byte, chunk_record_bytes> record{};
  const uint64_t length = data.size();
  std::memcpy(record.data(), &length, sizeof length);
  std::memcpy(record.data() + 8, sha256.data(), sha256.size());
  // The bytes first: a record without its bytes is seen, bytes without a record are cut off.
  for (auto outcome : {data_.write(std::as_bytes(std::span(data))), chunks_.write(record)})
    if (!outcome.ok()) {
      (void)cut(received_);
      return refuse(outcome);
    }
  uint64_t good_bytes = 0;
  if (count(data, good_bytes))
    return {};
  const auto name = manifest_.tensors[tensor_index_].name;
  if (auto outcome = cut(good_bytes); !outcome.ok())
    return refuse(outcome);
  return bad_chunk(errc::data_loss, "tensor", "Tensor " + name + " does not match its checksum.");
}

caf::expected<std::string> partial_stream::finish() {
  if (!complete())
    return bad_chunk(errc::failed_precondition, "partial", "The checkpoint is not here whole.");
  if (whole_.finish() != manifest_.sha256) {
    (void)remove_tree(directory_);
    return bad_chunk(errc::data_loss, "stream", "The checkpoint as a whole does not match its checksum.");
  }
  auto ready = directory_.substr(0, directory_.size() - partial_suffix.size()) + std::string(ready_suffix);
  const auto store = [&]() -> status {
    NEUROSHARD_TRY(data_.sync_and_close());
    chunks_ = {};
    NEUROSHARD_TRY(sync_directory(directory_));
    NEUROSHARD_TRY(replace_directory(directory_, ready));
    return sync_directory(fs::path(ready).parent_path().string());
  };
  if (const auto stored = store(); !stored.ok())
    return refuse(stored);
  return ready;
}

kernels::result<stored_stream> stored_stream::open(const std::string& directory) {
  stored_stream made;
  made.directory_ = directory;
  auto manifest = read_stored_manifest(directory);
  if (!manifest.ok())
    return manifest.status();
  made.blob_ = std::move(manifest->first);
  made.manifest_ = std::move(manifest->second);
  auto data = plain_file::open(directory + "/" + stream_data_file);
  if (!data.ok())
    return data.status();
  const auto bytes = data->size();
  if (!bytes.ok() || *bytes != made.manifest_.total_bytes)
    return status(code::corrupt, directory + " has another length than its manifest says");
  made.data_ = std::move(*data);
  return made;
}

const transfer_tensor* stored_stream::find(std::string_view name) const {
  const auto at = std::find_if(manifest_.tensors.begin(), manifest_.tensors.end(),
                               [&](const auto& tensor) { return tensor.name == name; });
  return at == manifest_.tensors.end() ? nullptr : &*at;
}

status stored_stream::read(const transfer_tensor& tensor, std::span<std::byte> to) const {
  if (to.size() != tensor.length)
    return {code::invalid_argument, "the buffer does not fit tensor " + tensor.name};
  NEUROSHARD_TRY(data_.read(tensor.offset, to));
  if (kernels::sha256().update(to.data(), to.size()).finish() != tensor.sha256)
    return {code::corrupt, tensor.name + " does not match its checksum"};
  return {};
}

std::string ready_directory(const std::string& folder, const transfer_manifest& manifest) {
  return folder + "/" + kernels::to_hex(manifest.sha256) + std::string(ready_suffix);
}

std::vector<stream_directory> list_streams(const std::string& folder, std::string_view suffix) {
  std::vector<stream_directory> found;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const auto name = at->path().filename().string();
    if (name.size() != 64 + suffix.size() || !name.ends_with(suffix))
      continue;
    stream_directory one{at->path().string(), 0, 0};
    struct stat of {};
    if (::stat((one.path + "/" + stream_data_file).c_str(), &of) == 0) {
      one.bytes = static_cast<uint64_t>(of.st_size);
      one.written_unix_us = int64_t{of.st_mtim.tv_sec} * 1'000'000 + of.st_mtim.tv_nsec / 1'000;
    }
    found.push_back(std::move(one));
  }
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return a.written_unix_us < b.written_unix_us; });
  return found;
}

} // namespace neuroshard
