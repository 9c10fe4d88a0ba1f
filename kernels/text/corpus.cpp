#include "kernels/text/corpus.hpp"

#include "kernels/text/files.hpp"
#include "kernels/text/json_input.hpp"
#include "kernels/text/utf8.hpp"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>
#include <sys/stat.h>
#include <system_error>
#include <utility>

namespace neuroshard::text {
namespace {

using kernels::code;
using kernels::result;
using kernels::status;
namespace fs = std::filesystem;

constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";

bool is_blank(std::string_view line) noexcept {
  return line.find_first_not_of(" \t\r\v\f") == std::string_view::npos;
}

// Walks a directory tree. Directories are known by device and inode, so a loop of links is entered once.
class walker {
public:
  walker(const corpus_limits& limits, corpus& out) : limits_(limits), out_(out) {}

  status directory(const std::string& path, const std::string& name, uint32_t depth) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0)
      return file_error(path, "cannot be read", errno);
    if (!seen_.emplace(info.st_dev, info.st_ino).second)
      return {};
    if (depth > limits_.depth_max)
      return {code::invalid_argument,
              path + ": directories are nested more than " + std::to_string(limits_.depth_max) + " deep"};
    std::error_code problem;
    std::vector<std::string> entries;
    for (fs::directory_iterator at(path, problem), end; !problem && at != end; at.increment(problem))
      entries.push_back(at->path().filename().string());
    if (problem)
      return file_error(path, "cannot be read", problem.value());
    // In order, so that of several links to one directory it is always the same that counts.
    std::sort(entries.begin(), entries.end());
    for (const std::string& entry : entries) {
      if (entry.starts_with('.'))
        continue;
      const std::string inner = path + "/" + entry;
      const std::string inner_name = name.empty() ? entry : name + "/" + entry;
      if (::stat(inner.c_str(), &info) != 0)
        continue; // a link that leads nowhere
      if (S_ISDIR(info.st_mode))
        NEUROSHARD_TRY(directory(inner, inner_name, depth + 1));
      else if (S_ISREG(info.st_mode) && (entry.ends_with(".txt") || entry.ends_with(".jsonl")))
        NEUROSHARD_TRY(file(inner, inner_name, info));
    }
    return {};
  }

  status file(const std::string& path, const std::string& name, const struct stat& info) {
    const auto bytes = static_cast<uint64_t>(info.st_size);
    if (bytes > limits_.file_bytes_max)
      return {code::invalid_argument, path + ": has " + std::to_string(bytes) +
                                          " bytes, a corpus file at most " +
                                          std::to_string(limits_.file_bytes_max) + "; split it"};
    if (out_.files.size() >= limits_.files_max)
      return {code::invalid_argument,
              out_.path + ": holds more than " + std::to_string(limits_.files_max) + " text files"};
    out_.files.push_back({path, name, bytes,
                          int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec,
                          path.ends_with(".jsonl")});
    out_.bytes += bytes;
    return {};
  }

private:
  const corpus_limits& limits_;
  corpus& out_;
  std::set<std::pair<dev_t, ino_t>> seen_;
};

kernels::digest fingerprint_of(const corpus& c) {
  kernels::sha256 hash;
  for (const corpus_file& file : c.files) {
    hash.update(file.name);
    const std::string rest =
        std::string(1, '\0') + std::to_string(file.bytes) + " " + std::to_string(file.modified_ns) + "\n";
    hash.update(rest);
  }
  return hash.finish();
}

// The text of a .jsonl line, or what is wrong with it.
status text_of_line(std::string_view line, std::string& out) {
  rapidjson::Document value;
  if (const std::string problem = parse_json_document(line, value); !problem.empty())
    return {code::corrupt, problem};
  const rapidjson::Value* text = &value;
  if (value.IsObject()) {
    const auto member = value.FindMember("text");
    if (member == value.MemberEnd())
      return {code::corrupt, "the object has no \"text\""};
    text = &member->value;
  }
  if (!text->IsString())
    return {code::corrupt, value.IsObject() ? "\"text\" is no string" : "neither an object nor a string"};
  out.assign(text->GetString(), text->GetStringLength());
  return {};
}

status deliver(std::string_view raw, size_t file, const document_sink& sink) {
  auto document = normalize_nfc(raw);
  if (!document)
    return document.status();
  if (is_blank(*document) || document->find_first_not_of(" \t\r\v\f\n") == std::string::npos)
    return {};
  return sink(*document, file);
}

status read_json_lines(std::string_view content, const corpus& from, size_t file, const document_sink& sink) {
  std::string text;
  uint64_t number = 0;
  while (!content.empty()) {
    const size_t end = std::min(content.find('\n'), content.size());
    const std::string_view line = content.substr(0, end);
    content.remove_prefix(std::min(end + 1, content.size()));
    ++number;
    if (is_blank(line))
      continue;
    if (const status outcome = text_of_line(line, text); !outcome.ok())
      return {outcome.why(),
              from.files[file].path + ": line " + std::to_string(number) + ": " + outcome.message()};
    NEUROSHARD_TRY(deliver(text, file, sink));
  }
  return {};
}

} // namespace

result<corpus> open_corpus(const std::string& path, const corpus_limits& limits) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0)
    return file_error(path, "cannot be read", errno);
  corpus made;
  made.path = path;
  walker walk(limits, made);
  if (S_ISDIR(info.st_mode))
    NEUROSHARD_TRY(walk.directory(path, "", 0));
  else if (S_ISREG(info.st_mode))
    NEUROSHARD_TRY(walk.file(path, fs::path(path).filename().string(), info));
  else
    return status{code::io, path + ": is neither a file nor a directory"};
  if (made.files.empty())
    return status{code::invalid_argument, path + ": holds no .txt or .jsonl file"};
  if (made.bytes == 0)
    return status{code::invalid_argument, path + ": is empty"};
  std::sort(made.files.begin(), made.files.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  made.fingerprint = fingerprint_of(made);
  return made;
}

std::vector<std::string_view> split_documents(std::string_view text) {
  std::vector<std::string_view> sections;
  size_t start = 0; // of the section at hand
  size_t end = 0;   // after its last line, newline left out
  bool inside = false;
  for (size_t at = 0; at < text.size();) {
    const size_t line_end = std::min(text.find('\n', at), text.size());
    if (!is_blank(text.substr(at, line_end - at))) {
      if (!inside)
        start = at;
      inside = true;
      end = line_end;
    } else if (inside) {
      sections.push_back(text.substr(start, end - start));
      inside = false;
    }
    at = line_end + 1;
  }
  if (inside)
    sections.push_back(text.substr(start, end - start));
  for (std::string_view& section : sections)
    if (section.ends_with('\r'))
      section.remove_suffix(1);
  return sections;
}

status read_documents(const corpus& from, size_t file, const document_sink& sink) {
  const corpus_file& source = from.files[file];
  // The file may have grown since it was listed; what came later is for the next start.
  auto content = read_file(source.path, std::max<uint64_t>(source.bytes, corpus_limits{}.file_bytes_max));
  if (!content)
    return content.status();
  std::string_view text = *content;
  if (text.starts_with(byte_order_mark))
    text.remove_prefix(byte_order_mark.size());
  if (source.json_lines)
    return read_json_lines(text, from, file, sink);
  for (const std::string_view section : split_documents(text))
    NEUROSHARD_TRY(deliver(section, file, sink));
  return {};
}

} // namespace neuroshard::text
