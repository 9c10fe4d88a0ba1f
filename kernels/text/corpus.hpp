#pragma once

#include "kernels/core/sha256.hpp"
#include "kernels/core/status.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace neuroshard::text {

/// What is refused as a corpus, with an error that says so.
struct corpus_limits {
  uint64_t file_bytes_max = uint64_t{1} << 30; ///< a file is read into memory whole
  uint32_t files_max = 100'000;
  uint32_t depth_max = 32; ///< directories inside directories
};

struct corpus_file {
  std::string path; ///< as it is opened
  std::string name; ///< relative to the corpus, with '/'
  uint64_t bytes = 0;
  int64_t modified_ns = 0;
  bool json_lines = false;
};

/// The files of a corpus, sorted by name (bytewise).
struct corpus {
  std::string path;
  std::vector<corpus_file> files;
  uint64_t bytes = 0;
  /// SHA-256 over names, sizes and modification times: equal means that nothing was changed since.
  kernels::digest fingerprint{};
};

/// Lists a `.txt` or `.jsonl` file (any other regular file is taken as text when it is named itself), or all
/// `.txt` and
/// `.jsonl` files below a directory. Symbolic links are followed once per directory, so loops end; hidden
/// entries are left out. `io` when the path is missing or unreadable, `invalid_argument` when nothing is in
/// it or a limit is passed.
kernels::result<corpus> open_corpus(const std::string& path, const corpus_limits& limits = {});

/// Takes one document, normalized (NFC) and not empty; `file` indexes corpus::files. An error stops the
/// reading.
using document_sink = std::function<kernels::status(std::string_view document, size_t file)>;

/// Reads all documents of one file, in order: the sections of a text file (separated by lines that hold
/// nothing but white space), or the lines of a .jsonl file (an object with a string "text", or a string).
/// Bytes that are no UTF-8 are kept. `corrupt` names file and line of what is no JSON; `io` a file that
/// vanished or cannot be read.
kernels::status read_documents(const corpus& from, size_t file, const document_sink& sink);

/// Splits text into the sections described above; the separating lines belong to none.
std::vector<std::string_view> split_documents(std::string_view text);

} // namespace neuroshard::text
